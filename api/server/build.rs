//! Compiles `log.proto` with protox, as the agent's own protocol is: no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=log.proto");
    let files = protox::compile(["log.proto"], ["."])?;
    // The client is for the tests.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(files)?;
    Ok(())
}
