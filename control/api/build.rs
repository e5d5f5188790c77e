//! Compiles the protobuf files without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["objects", "control", "cluster", "identity", "local", "settings"]
        .map(|f| format!("mesh/v1/{f}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    let methods = descriptors.file.iter().flat_map(|file| {
        let package = file.package();
        file.service.iter().flat_map(move |service| {
            service
                .method
                .iter()
                .map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
        })
    });
    let list = methods.map(|method| format!("    {method:?},\n")).collect::<String>();
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("methods.rs"), format!("&[\n{list}]\n"))?;
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
