//! Compiles the protobuf files without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["objects", "control", "cluster", "identity", "local", "settings"].map(|f| format!("mesh/v1/{f}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
