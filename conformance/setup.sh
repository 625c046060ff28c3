#!/bin/bash
# Installs what building and testing need: Debian packages, and tools by Go module.
# Quick when everything is there. Packages need root.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=(
    gcc libc6-dev make pkg-config libseccomp-dev protobuf-compiler   # building
    iproute2 nftables curl jq file procps util-linux            # running and looking
    busybox nginx-light                                             # what test images are made of
    runc                                                             # to compare with
)

missing=()
for package in "${PACKAGES[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: installing ${missing[*]}"
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get -qq update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null
fi

command -v cargo >/dev/null || { echo "setup: cargo is missing: install Rust with rustup" >&2; exit 1; }
[ "${1:-all}" != build ] || exit 0

# Tests drive the daemon with crictl and critest; both are pinned in tools/go.
command -v go >/dev/null || { echo "setup: go is missing: install Go 1.26 or newer" >&2; exit 1; }
tools=${CARPEL_CACHE_DIR:-$PWD/.cache}/bin
pin=$(cat conformance/tools/go/go.mod conformance/tools/go/go.sum <(go version) | sha256sum | cut -c1-16)
if [ "$(cat "$tools/.pin" 2>/dev/null || true)" != "$pin" ]; then
    echo "setup: building crictl and critest"
    mkdir -p "$tools"
    (
        cd conformance/tools/go
        export CGO_ENABLED=0 GOFLAGS=-trimpath
        go build -o "$tools/crictl" sigs.k8s.io/cri-tools/cmd/crictl
        go test -vet=off -c -o "$tools/critest" sigs.k8s.io/cri-tools/cmd/critest
    )
    echo "$pin" >"$tools/.pin"
fi
# What `make bench` compares with, built like the tools and pinned the same way.
if [ "${1:-all}" = bench ]; then
    pin=$(cat conformance/tools/peers/go.mod conformance/tools/peers/go.sum <(go version) | sha256sum | cut -c1-16)
    if [ "$(cat "$tools/.pin-peers" 2>/dev/null || true)" != "$pin" ]; then
        echo "setup: building containerd and CNI plugins"
        mkdir -p "$tools/cni"
        (
            cd conformance/tools/peers
            export CGO_ENABLED=0 GOFLAGS=-trimpath
            modules=github.com/containerd/containerd/v2
            version=$(go list -m -f '{{.Version}}' $modules)
            go build -tags no_btrfs,no_devmapper,no_zfs \
                -ldflags "-s -w -X $modules/version.Version=$version" \
                -o "$tools/" $modules/cmd/containerd $modules/cmd/containerd-shim-runc-v2
            modules=github.com/containernetworking/plugins/plugins
            go build -ldflags '-s -w' -o "$tools/cni/" \
                $modules/main/bridge $modules/main/loopback \
                $modules/ipam/host-local $modules/meta/portmap
        )
        echo "$pin" >"$tools/.pin-peers"
    fi
fi
# The published CRI, for the test that compares ours with it.
(cd / && go mod download k8s.io/cri-api@v0.37.2)
