//! cgroups through systemd: the names of slices and scopes, and the calls that make
//! and end a scope.
//!
//! A pod gets one transient scope, whose cgroup is delegated to us (Delegate=yes);
//! all below it is ours, as with cgroupfs.

mod dbus;
#[cfg(test)]
mod fake;
mod scope;
mod slice;

pub(crate) use dbus::{Systemd, Units};
pub(crate) use scope::{BELOW_SCOPE, Scope};
pub(crate) use slice::{expand, of_path};
