//! Compiles our `.proto` files with protox: no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=holder");
    println!("cargo::rerun-if-changed=state");
    let messages = protox::compile(["holder/v1/holder.proto", "state/v1/state.proto"], ["."])?;
    prost_build::Config::new().compile_fds(messages)?;

    if std::env::var_os("CARGO_FEATURE_GRPC").is_some() {
        println!("cargo::rerun-if-changed=cri");
        println!("cargo::rerun-if-changed=admin");
        let services = protox::compile(["cri/v1/api.proto", "admin/v1/admin.proto"], ["."])?;
        tonic_prost_build::configure().compile_fds(services)?;
    }
    Ok(())
}
