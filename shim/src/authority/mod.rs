//! Clients that call a unix socket by its path.
//!
//! gRPC clients send as `:authority` what they connected to, and for a unix socket
//! some (grpc-go before 1.34, grpcurl, grpc-java) send its path. HTTP/2 allows no
//! such authority, and our HTTP library refuses the request. Since nothing here looks
//! at the authority, its forbidden characters are replaced before the library sees
//! them.

mod rewrite;
mod stream;

pub(crate) use stream::LenientStream;
