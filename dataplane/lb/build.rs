//! Compiles the eBPF programs for `bpfel-unknown-none` and puts the object where `src/object.rs` embeds it.
//!
//! Takes whichever toolchain has the standard library's source, which that target is built from: a distribution's own
//! (Debian's `rustc-web` with `rust-web-src`), else rustup's nightly with the `rust-src` component. `MESHD_BPF_OBJECT`
//! names an object built elsewhere instead. Of its information for debuggers only what the kernel asks for is embedded.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use object::{
    build::elf::{Builder, SectionData},
    elf,
};

const OBJECT: &str = "mesh-ebpf";
const TARGET: &str = "bpfel-unknown-none";

fn main() {
    if let Err(problem) = embed() {
        // One line each: cargo shows nothing else of it.
        let text = problem.to_string();
        text.lines().for_each(|line| println!("cargo::error={line}"));
    }
}

/// Why there is no object.
enum Problem {
    Variable(&'static str),
    File(PathBuf, std::io::Error),
    NoToolchain,
    NoLinker,
    Build(String),
    Strip(PathBuf, object::build::Error),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "{name} is not set; this runs under cargo only"),
            Self::File(path, error) => write!(f, "cannot use {}: {error}", path.display()),
            Self::NoToolchain => write!(
                f,
                "the eBPF programs need a Rust compiler with the standard library's source, and neither /usr/bin/rustc \
                 nor rustup's nightly has it: run `cargo xtask setup`, or install Debian's rustc-web, cargo-web and \
                 rust-web-src, or run `rustup toolchain install nightly --component rust-src`, or name a built object \
                 in MESHD_BPF_OBJECT"
            ),
            Self::NoLinker => write!(
                f,
                "the eBPF programs need bpf-linker, which is neither in PATH nor in cargo's bin folder: run `cargo xtask \
                 setup`, or name a built object in MESHD_BPF_OBJECT"
            ),
            Self::Strip(path, error) => write!(f, "{} is no ELF object: {error}", path.display()),
            Self::Build(output) => write!(f, "the eBPF programs do not compile:\n{output}"),
        }
    }
}

fn embed() -> Result<(), Problem> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let programs = here.join("../../ebpf/programs");
    for path in ["src", "Cargo.toml", "Cargo.lock", ".cargo", "../abi/src", "../abi/Cargo.toml"] {
        let path = programs.join(path);
        // A missing path would make cargo run this every time.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MESHD_BPF_OBJECT");
    let object = match env::var_os("MESHD_BPF_OBJECT") {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", Path::new(&path).display());
            path.into()
        }
        None => compile(&programs, &out.join("bpf"))?,
    };
    let whole = fs::read(&object).map_err(|e| Problem::File(object.clone(), e))?;
    let stripped = without_debug(&whole).map_err(|e| Problem::Strip(object, e))?;
    let embedded = out.join(OBJECT);
    fs::write(&embedded, stripped).map_err(|e| Problem::File(embedded, e))
}

/// The object without DWARF, which the linker leaves beside the BTF that it makes of it: nine tenths.
fn without_debug(object: &[u8]) -> Result<Vec<u8>, object::build::Error> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        section.delete = section.name.starts_with(b".debug_") || section.name.starts_with(b".rel.debug_");
    }
    // LLVM keeps the sections' names among the symbols'.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

fn variable(name: &'static str) -> Result<OsString, Problem> {
    env::var_os(name).ok_or(Problem::Variable(name))
}

/// A cargo and a rustc that belong together.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
}

fn compile(programs: &Path, target_dir: &Path) -> Result<PathBuf, Problem> {
    let toolchain = toolchain().ok_or(Problem::NoToolchain)?;
    let path = path_with_linker().ok_or(Problem::NoLinker)?;
    let mut cargo = clean(&toolchain.cargo);
    cargo
        .env("PATH", path)
        .env("RUSTC", &toolchain.rustc)
        // Lets a stable compiler take the unstable option that builds the standard library.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", target_dir)
        .current_dir(programs)
        .args(["build", "--quiet", "--locked", "--release", "--target", TARGET, "-Z", "build-std=core"]);
    let output = cargo.output().map_err(|e| Problem::File(toolchain.cargo, e))?;
    if !output.status.success() {
        return Err(Problem::Build(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(target_dir.join(TARGET).join("release").join(OBJECT))
}

/// A command without what this build's cargo has put into the environment for its own compilers (their wrappers, flags
/// and toolchain), which must not reach another's.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    let kept = ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_HTTP_CAINFO", "CARGO_NET_OFFLINE"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("CARGO") || text.starts_with("RUST") || text.starts_with("CLIPPY");
        if ours && text != "RUSTUP_HOME" && !kept.contains(&text.as_ref()) {
            command.env_remove(&name);
        }
    }
    for name in [
        "TARGET",
        "HOST",
        "OUT_DIR",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "MAKEFLAGS",
        "__CARGO_FIX_PLZ",
    ] {
        command.env_remove(name);
    }
    command
}

fn toolchain() -> Option<Toolchain> {
    let distribution = Toolchain { cargo: "/usr/bin/cargo".into(), rustc: "/usr/bin/rustc".into() };
    if distribution.cargo.exists() && has_source(clean(&distribution.rustc)) {
        return Some(distribution);
    }
    let which = |name| {
        let output =
            clean(Path::new("rustup")).args(["which", "--toolchain", "nightly", name]).output().ok()?;
        output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    };
    let nightly = Toolchain { cargo: which("cargo")?, rustc: which("rustc")? };
    has_source(clean(&nightly.rustc)).then_some(nightly)
}

fn has_source(mut rustc: Command) -> bool {
    let Ok(output) = rustc.args(["--print", "sysroot"]).output() else { return false };
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success()
        && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
}

/// `PATH`, with cargo's bin folder added where bpf-linker is only there.
fn path_with_linker() -> Option<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let cargo_home =
        env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    folders.extend(cargo_home.map(|home| home.join("bin")));
    if !folders.iter().any(|folder| folder.join("bpf-linker").exists()) {
        return None;
    }
    env::join_paths(folders).ok()
}
