//! Compiles the server's `log.proto` for a client of our own: the server's crate would bring RocksDB along.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../../api/server/log.proto");
    let files = protox::compile(["log.proto"], ["../../api/server"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .compile_fds(files)?;
    Ok(())
}
