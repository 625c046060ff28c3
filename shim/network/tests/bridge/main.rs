//! The drivers with real packets. Each test has a host of its own: a fresh network
//! namespace. Needs root, `nft` and `ip`.

#[cfg(test)]
mod crash;
#[cfg(test)]
mod flows;
#[cfg(test)]
mod host_ports;
#[cfg(test)]
mod inventory;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod sctp;
#[cfg(test)]
mod simple;
#[cfg(test)]
mod support;
