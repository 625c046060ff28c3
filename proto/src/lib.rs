//! Every format that crosses a process boundary, generated from the `.proto`
//! files beside this crate's manifest. There is no logic here.

/// The Kubernetes Container Runtime Interface, `runtime.v1`.
#[cfg(feature = "grpc")]
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction
)]
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

/// What `carpel` can ask of the daemon beyond the CRI.
#[cfg(feature = "grpc")]
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction
)]
pub mod admin {
    tonic::include_proto!("carpel.admin.v1");
}

/// Between the daemon and the holder of a pod.
#[allow(
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction
)]
pub mod holder {
    include!(concat!(env!("OUT_DIR"), "/carpel.holder.v1.rs"));

    /// Version of this protocol, in [`Hello::protocol`].
    pub const PROTOCOL: u32 = 1;
    /// Largest packet either side sends.
    pub const MAX_PACKET: usize = 64 * 1024;
    /// Most file descriptors in one packet (the kernel's limit is 253).
    pub const MAX_FDS: usize = 250;
}

/// Records on disk.
#[allow(
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction
)]
pub mod state {
    include!(concat!(env!("OUT_DIR"), "/carpel.state.v1.rs"));
}
