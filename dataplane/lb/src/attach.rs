//! Attaching the data path's programs to the node's interfaces and sockets.

use std::{collections::BTreeSet, io};

use aya::programs::{ProgramError, TcAttachType};

use crate::{
    datapath::DataPath,
    error::Error,
    features,
    hooks::{self, CGROUP_PREFIX, CGROUP_PROGRAMS, HookKind, TcHold},
    programs::Programs,
    uplink::{self, NoXdp, Uplink, wants_xdp},
};

pub(crate) const UPLINK: &str = "uplink";
const UPLINK_XDP: &str = "uplink_xdp";
const VXLAN: &str = "vxlan";
const FROM_HOST: &str = "from_host";
const FROM_TASK: &str = "from_task";
const TO_TASK: &str = "to_task";
const TC_PROGRAMS: [&str; 5] = [FROM_TASK, TO_TASK, UPLINK, VXLAN, FROM_HOST];

/// Something that this process has attached programs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attached {
    Uplink(String),
    Vxlan(String),
    HostLink(String),
    Task(String),
    Sockets,
}

impl DataPath {
    /// Attaches to an uplink: an interface by which VXLAN packets and clients of published ports come. Changes nothing
    /// where all is as it should be, so it may be called whenever interfaces change; one that went and came back is
    /// attached anew. [`crate::Stats::uplinks`] tells whether XDP is used, and if not why.
    pub fn attach_uplink(&mut self, interface: &str) -> Result<HookKind, Error> {
        let [tc, xdp] = hooks::uplink_hooks(interface);
        hooks::adopt_uplink(&self.pins, interface, UPLINK, &tc)?;
        let kind = self.attach(UPLINK, &tc, interface, TcAttachType::Ingress, TcHold::Link)?;
        let xdp = match self.attach_xdp(&xdp, interface) {
            Ok(()) => Ok(()),
            Err(why) => {
                hooks::detach(&self.pins, &xdp)?;
                Err(why)
            }
        };
        let state = Uplink { interface: interface.to_owned(), tc: kind, xdp };
        if self.uplinks.get(interface) != Some(&state) {
            match &state.xdp {
                Ok(()) => tracing::info!(interface, tc = %kind, "uplink attached, with XDP"),
                Err(why) => tracing::info!(interface, tc = %kind, no_xdp = %why, "uplink attached"),
            }
            self.uplinks.insert(interface.to_owned(), state);
        }
        self.attached.insert(Attached::Uplink(interface.to_owned()));
        Ok(kind)
    }

    /// Detaches from an uplink, which may be gone already.
    pub fn detach_uplink(&mut self, interface: &str) -> Result<(), Error> {
        self.uplinks.remove(interface);
        self.attached.remove(&Attached::Uplink(interface.to_owned()));
        hooks::uplink_hooks(interface).iter().try_for_each(|hook| hooks::detach(&self.pins, hook))
    }

    /// The uplinks that programs are attached to, by this daemon or an earlier one.
    pub fn attached_uplinks(&self) -> Result<BTreeSet<String>, Error> {
        Ok(hooks::attached(&self.pins)?.keys().filter_map(|hook| hooks::uplink_interface(hook)).collect())
    }

    /// Attaches to the flow-based VXLAN device.
    pub fn attach_vxlan(&mut self, interface: &str) -> Result<HookKind, Error> {
        let kind = self.attach(VXLAN, VXLAN, interface, TcAttachType::Ingress, TcHold::Link)?;
        self.attached.insert(Attached::Vxlan(interface.to_owned()));
        Ok(kind)
    }

    /// Attaches to the host side of the host link.
    pub fn attach_host_link(&mut self, interface: &str) -> Result<HookKind, Error> {
        let kind = self.attach(FROM_HOST, FROM_HOST, interface, TcAttachType::Egress, TcHold::Link)?;
        self.attached.insert(Attached::HostLink(interface.to_owned()));
        Ok(kind)
    }

    /// Attaches to both directions of a task's host-side interface: by filters, which cost a packet some nanoseconds more than
    /// links for tc, and the task that waits for them some tens of milliseconds less.
    pub fn attach_task(&mut self, interface: &str) -> Result<HookKind, Error> {
        let [from, to] = hooks::task_hooks(interface);
        self.attach(TO_TASK, &to, interface, TcAttachType::Egress, TcHold::QuickFilter)?;
        let kind = self.attach(FROM_TASK, &from, interface, TcAttachType::Ingress, TcHold::QuickFilter)?;
        self.attached.insert(Attached::Task(interface.to_owned()));
        Ok(kind)
    }

    /// Detaches from tasks' interfaces, which may be gone already; tells what became of each.
    pub fn detach_tasks(&mut self, interfaces: &[&str]) -> Vec<Result<(), Error>> {
        let mut names = Vec::with_capacity(interfaces.len() * 2);
        for interface in interfaces {
            self.attached.remove(&Attached::Task((*interface).to_owned()));
            names.extend(hooks::task_hooks(interface));
        }
        let mut done = hooks::detach_all(&self.pins, &names).into_iter();
        interfaces.iter().map(|_| done.by_ref().take(2).fold(Ok(()), Result::and)).collect()
    }

    /// The task interfaces that programs are attached to, by this daemon or an earlier one.
    pub fn attached_tasks(&self) -> Result<BTreeSet<String>, Error> {
        Ok(hooks::attached(&self.pins)?.keys().filter_map(|hook| hooks::task_interface(hook)).collect())
    }

    /// Attaches to the host's sockets, so that published ports answer on `localhost` and the node's own addresses.
    /// Sockets of other network namespaces are left alone.
    pub fn attach_cgroup(&mut self) -> Result<(), Error> {
        let cgroup = match &self.options.cgroup {
            Some(path) => path.clone(),
            None => features::cgroup2_root().ok_or(Error::NoCgroup)?,
        };
        for (name, attach_type, needed) in CGROUP_PROGRAMS {
            let refused = |source| Error::Program { program: name, source: Box::new(source) };
            let program = match self.programs.get(name).map_err(refused)? {
                Some(program) => program,
                None if needed => return Err(Error::Missing { kind: "program", name }),
                None => continue,
            };
            let hook = format!("{CGROUP_PREFIX}{name}");
            hooks::attach_cgroup(&self.pins, program, &hook, &cgroup, attach_type)?;
        }
        self.attached.insert(Attached::Sockets);
        Ok(())
    }

    /// Replaces every program that this process has attached, where the interface is still there.
    pub(crate) fn attach_again(&mut self) -> Result<(), Error> {
        let there = |name: &str| nix::net::if_::if_nametoindex(name).is_ok();
        for attached in self.attached.clone() {
            match &attached {
                Attached::Uplink(name) if there(name) => drop(self.attach_uplink(name)?),
                Attached::Vxlan(name) if there(name) => drop(self.attach_vxlan(name)?),
                Attached::HostLink(name) if there(name) => drop(self.attach_host_link(name)?),
                Attached::Task(name) if there(name) => drop(self.attach_task(name)?),
                Attached::Sockets => self.attach_cgroup()?,
                Attached::Uplink(_) | Attached::Vxlan(_) | Attached::HostLink(_) | Attached::Task(_) => {}
            }
        }
        Ok(())
    }

    fn attach(
        &mut self,
        program: &'static str,
        hook: &str,
        interface: &str,
        direction: TcAttachType,
        hold: TcHold,
    ) -> Result<HookKind, Error> {
        let hold = if self.options.clsact_only { TcHold::Filter } else { hold };
        let program = self.programs.tc(program)?;
        hooks::attach_tc(&self.pins, program, hook, interface, direction, hold)
    }

    fn attach_xdp(&mut self, hook: &str, interface: &str) -> Result<(), NoXdp> {
        wants_xdp(self.options.uplink_hook, interface)?;
        let other = |e: ProgramError| match e {
            // Without the verifier's log.
            ProgramError::LoadError { io_error, .. } => uplink::refused(&io_error),
            e => uplink::refused(&io::Error::other(e)),
        };
        let program = self.programs.get(UPLINK_XDP).map_err(other)?.ok_or(NoXdp::NotBuilt)?;
        hooks::attach_xdp(&self.pins, program, hook, interface).map_err(|e| uplink::refused(&e))
    }
}

/// Brings what every node needs into the kernel.
pub(crate) fn load(programs: &mut Programs) -> Result<(), Error> {
    TC_PROGRAMS.into_iter().try_for_each(|name| programs.tc(name).map(drop))
}
