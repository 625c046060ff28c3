//go:build tools

// Package tools names the programs that the conformance suite drives; they come as
// Go modules, pinned by go.mod and go.sum beside this file.
package tools

import (
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
