//! What a program makes of a packet.

use std::io::ErrorKind;

use aya::{
    TestRun, TestRunOptions,
    programs::{ProgramError, SchedClassifier, Xdp},
};

use super::{Node, Task, index};

/// What a program said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
    Redirect,
}

impl Node {
    /// What `uplink_xdp` makes of a packet; its action is one of the kernel's `enum xdp_action`.
    pub fn uplink_xdp(&self, packet: &[u8]) -> (u32, Vec<u8>) {
        let mut ebpf = self.ebpf.borrow_mut();
        let program: &mut Xdp = ebpf.program_mut("uplink_xdp").unwrap().try_into().unwrap();
        if program.fd().is_err() {
            load(|| program.load());
        }
        // `struct xdp_md` of linux/bpf.h.
        let mut context = [0u8; 24];
        context[4..8].copy_from_slice(&(packet.len() as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&self.uplink.to_ne_bytes());
        let mut out = vec![0u8; packet.len() + 256];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).expect("test run");
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// The host side of a task's link.
    pub fn interface_of(&self, task: Task) -> u32 {
        index(&format!("task{}", task.id))
    }

    /// What `from_task` makes of a packet that a task sends.
    pub fn task_sends(&self, task: Task, packet: &[u8]) -> (Action, Vec<u8>) {
        self.run("from_task", index(&format!("task{}", task.id)), packet, 0)
    }

    pub fn to_task(&self, task: Task, packet: &[u8]) -> (Action, Vec<u8>) {
        self.run("to_task", index(&format!("task{}", task.id)), packet, 0)
    }

    pub fn uplink(&self, packet: &[u8]) -> (Action, Vec<u8>) {
        self.run("uplink", self.uplink, packet, 0)
    }

    pub fn socket_sends(&self, packet: &[u8]) -> (Action, Vec<u8>) {
        self.run("from_host", self.host, packet, 0)
    }

    /// Runs a program once; `gso_size` other than 0 makes the packet one that is still to be segmented.
    pub fn run(&self, program: &str, ifindex: u32, packet: &[u8], gso_size: u32) -> (Action, Vec<u8>) {
        let mut ebpf = self.ebpf.borrow_mut();
        let program: &mut SchedClassifier = ebpf.program_mut(program).unwrap().try_into().unwrap();
        if program.fd().is_err() {
            load(|| program.load());
        }
        // `struct __sk_buff` of linux/bpf.h, of which a test run takes these fields.
        let mut context = [0u8; 192];
        context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
        context[164..168].copy_from_slice(&u32::from(gso_size != 0).to_ne_bytes());
        context[176..180].copy_from_slice(&gso_size.to_ne_bytes());
        let mut out = vec![0u8; packet.len() + 256];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).expect("test run");
        out.truncate(result.data_size_out as usize);
        let action = match result.return_value as i32 {
            -1 => Action::Pass,
            2 => Action::Drop,
            7 => Action::Redirect,
            other => panic!("verdict {other}"),
        };
        (action, out)
    }
}

/// Loads a program. A verifier that is interrupted, by whatever signal, asks to be called again.
fn load(mut attempt: impl FnMut() -> Result<(), ProgramError>) {
    let interrupted = |error: &ProgramError| match error {
        ProgramError::LoadError { io_error, .. } => io_error.kind() == ErrorKind::WouldBlock,
        _ => false,
    };
    let last = (0..20).map(|_| attempt()).find(|loaded| !loaded.as_ref().is_err_and(interrupted));
    last.expect("a verifier that is not interrupted each time").expect("the verifier takes the program");
}
