//! Which backend a flow is given: the one it has, else the one that every node would choose.
//!
//! [`pick`] only reads; [`note`] writes down what came of it. A program that may leave a packet to another one after all
//! picks first and notes when it has decided.

use aya_ebpf::bindings::BPF_ANY;
use mesh_abi::{
    BackendValue, ChoiceValue, Counter, DropReason, FlowKey, PUBLISHED, ServiceValue, TABLE_BLOCK,
    flow_state::{CONFIRMED, DIRECT},
    service_flags,
};

use crate::{
    affinity,
    conntrack::{self, Flow},
    events, hash,
    maps::{BACKENDS, CHOICES_KEPT, MAGLEV},
    parse::{RST, TCP},
    recent, stage, traffic,
    verdict::count,
    verifier::alone,
};

/// What a flow is given.
pub enum Choice {
    /// A task.
    Backend(&'static BackendValue),
    /// Nothing any more: a TCP connection whose task is gone.
    Gone,
}

/// The packet for which a choice is made.
pub struct Chooser {
    /// TCP's flag byte; zero for other protocols.
    pub flags: u8,
    /// See [`ChoiceValue::client`].
    pub client: u32,
    /// See [`ChoiceValue::ifindex`].
    pub ifindex: u32,
    /// See [`ChoiceValue::service`].
    pub service: u32,
}

/// What is to be written down of a choice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Nothing,
    /// The flow goes on.
    Update,
    /// The flow is new.
    Begin,
    /// The flow is new, and an established one of the same key is over.
    Replace,
    /// The flow is over: its backend is gone.
    Forget,
    /// There is no backend at all.
    Refuse,
}

/// A choice that is not written down yet. Nothing in it depends on anything else in it, for the verifier's sake.
#[derive(Clone, Copy)]
pub struct Pick {
    /// Nothing when there is none (any more).
    pub backend: Option<&'static BackendValue>,
    /// Key into `BACKENDS`.
    pub id: u32,
    step: Step,
}

impl Pick {
    const REFUSED: Self = Self { backend: None, id: 0, step: Step::Refuse };
}

/// The backend of the flow `key`.
#[inline(always)]
pub fn choose(key: &FlowKey, service: &ServiceValue, by: &Chooser) -> Result<Choice, DropReason> {
    let now = conntrack::now();
    let (known, kept) = if conntrack::opens(by.flags) {
        let kept = established(key);
        (kept, kept.is_some())
    } else {
        let (known, kept) = find(key);
        (known.map(|known| &*known), kept)
    };
    let pick = pick(key, service, by, (known, kept), now);
    note(pick, key, service, by, now);
    match pick.backend {
        Some(backend) => Ok(Choice::Backend(backend)),
        None if pick.step == Step::Forget => Ok(Choice::Gone),
        None => Err(DropReason::NoBackend),
    }
}

/// What a flow is given instead.
pub enum Again {
    /// A task: the key into `BACKENDS`.
    Backend(u32),
    /// As in [`Choice`].
    Gone,
}

/// Another backend than the one that its node has refused to know, for the flow `key`, whose choice was made here.
/// Connections that go on have none, and after the `last` refusal there is none for anybody.
#[inline(always)]
pub fn choose_again(
    key: &FlowKey,
    service: &ServiceValue,
    by: &Chooser,
    is_refused: impl Fn(&BackendValue) -> bool,
    last: bool,
) -> Result<Again, DropReason> {
    let now = conntrack::now();
    let kept = established(key);
    let Some(known) = kept.or_else(|| recent(key)) else { return Err(DropReason::UnexpectedReturn) };
    let goes_on = key.protocol == TCP && !conntrack::opens(by.flags);
    if let Some(old) = backend(known.backend)
        && !is_refused(old)
    {
        // An earlier packet of the flow has been refused, too; a connection is told by its own.
        return if goes_on { Err(DropReason::StaleEndpoint) } else { Ok(Again::Backend(known.backend)) };
    }
    let new = if goes_on || last { None } else { other_slot(key, service, known.backend) };
    if let Some((id, new)) = new {
        let step = if kept.is_some() { Step::Replace } else { Step::Begin };
        note(Pick { backend: Some(new), id, step }, key, service, by, now);
        return Ok(Again::Backend(id));
    }
    forget(key);
    if key.protocol == TCP { Ok(Again::Gone) } else { Err(DropReason::NoBackend) }
}

/// The first backend but `not` in the slots behind a flow's own.
#[inline(always)]
fn other_slot(key: &FlowKey, service: &ServiceValue, not: u32) -> Option<(u32, &'static BackendValue)> {
    let found = other_id(key, service, not);
    if found == not { None } else { Some((found, backend(found)?)) }
}

alone! {
    /// Its key into `BACKENDS`; `not` when there is none.
    fn other_id[choice_other_id](key: &FlowKey, service: &ServiceValue, not: u32) -> u32, or not; {
        /// Neighbours in a table are as good as drawn by lot.
        const SLOTS: u32 = 16;
        if service.table_len == 0 {
            return not;
        }
        let hash = if affinity::is_asked_for(service) { hash::client(&key.source) } else { hash::flow(key) };
        for next in 1..=SLOTS {
            let slot = service.table_base + hash.wrapping_add(next) % service.table_len;
            let Some(block) = MAGLEV.get(slot / TABLE_BLOCK) else { return not };
            let id = block[(slot % TABLE_BLOCK) as usize];
            if id != not {
                return id;
            }
        }
        not
    }
}

/// The entry of an established flow.
#[inline(always)]
pub fn established(key: &FlowKey) -> Option<&'static ChoiceValue> {
    // SAFETY: an entry that is removed meanwhile gives one packet what it was given last.
    unsafe { CHOICES_KEPT.get(key) }
}

/// The entry of a flow, or a copy of it until the next look at new flows if it is not established, and whether it is.
#[inline(always)]
fn find(key: &FlowKey) -> (Option<&'static mut ChoiceValue>, bool) {
    let Some(stage) = stage::of(key) else { return (None, false) };
    let asked = *stage;
    let mut found = None;
    if asked == stage::NEW {
        found = recent::find(key);
    }
    let mut kept = false;
    if found.is_none() {
        // SAFETY: a map value, valid until the program ends.
        found = CHOICES_KEPT.get_ptr_mut(key).map(|kept| unsafe { &mut *kept });
        kept = found.is_some();
        if kept {
            *stage = stage::KEPT;
        } else if asked != stage::NEW {
            found = recent::find(key);
            if found.is_some() {
                *stage = stage::NEW;
            }
        }
    }
    (found, kept)
}

/// The choice for any flow; `known` is its entry and `kept` says that it is established. For a packet that opens a connection
/// the entry may be left out if it is not.
#[inline(always)]
pub fn pick(
    key: &FlowKey,
    service: &ServiceValue,
    by: &Chooser,
    (known, kept): (Option<&'static ChoiceValue>, bool),
    now: u64,
) -> Pick {
    if conntrack::opens(by.flags) {
        // A new connection asks the table: what an earlier one on the same ports was given may be draining, or belong
        // to another service that had the port then.
        let Some((id, new)) = from_table(key, service, now) else {
            // Only draining tasks are left: better one of those than none.
            let Some(known) = known.or_else(|| recent(key)) else { return Pick::REFUSED };
            let Some(old) = backend(known.backend) else { return Pick::REFUSED };
            return Pick { backend: Some(old), id: known.backend, step: Step::Nothing };
        };
        return Pick { backend: Some(new), id, step: opening(if kept { known } else { None }, id) };
    }
    if let Some(known) = known {
        if let Some(old) = backend(known.backend) {
            return Pick { backend: Some(old), id: known.backend, step: goes_on(key, by, known, now) };
        }
        if key.protocol == TCP {
            return Pick { backend: None, id: 0, step: Step::Forget };
        }
    }
    let Some((id, new)) = from_table(key, service, now) else { return Pick::REFUSED };
    let begin = if kept { Step::Replace } else { Step::Begin };
    let step = if by.flags & RST != 0 { Step::Nothing } else { begin };
    Pick { backend: Some(new), id, step }
}

/// The choice for a packet that opens a connection, by the table alone and without a look at the backend: for services
/// that remember no clients. Nothing when the table is empty.
#[inline(always)]
pub fn pick_opening(
    key: &FlowKey,
    service: &ServiceValue,
    kept: Option<&'static ChoiceValue>,
) -> Option<Pick> {
    let id = slot(key, service)?;
    Some(Pick { backend: None, id, step: opening(kept, id) })
}

/// What becomes of the entries of a connection that opens and is given a backend.
#[inline(always)]
fn opening(kept: Option<&'static ChoiceValue>, id: u32) -> Step {
    match kept {
        // Opened once more, perhaps by somebody else with the client's address: nothing is lost by believing that the
        // established one lives.
        Some(kept) if kept.backend == id && !conntrack::closing(kept.state) => Step::Nothing,
        Some(_) => Step::Replace,
        None => Step::Begin,
    }
}

/// Writes down what was picked for a packet of `key`.
#[inline(always)]
pub fn note(pick: Pick, key: &FlowKey, service: &ServiceValue, by: &Chooser, now: u64) {
    match pick.step {
        Step::Nothing | Step::Refuse => {}
        Step::Update => update(key, by, now),
        Step::Forget => forget(key),
        Step::Begin | Step::Replace => {
            begin(pick, key, service, by, now);
            if affinity::is_remembered(service) {
                affinity::note(key, service, pick.id, now);
            }
            if pick.step == Step::Replace {
                // After the insertion, so that there is an entry at any moment.
                let _ = CHOICES_KEPT.remove(key);
            }
        }
    }
}

/// Writes down a further packet of an established flow, whose entry is `kept`; whether there was news.
#[inline(always)]
pub fn note_established(key: &FlowKey, by: &Chooser, kept: &ChoiceValue, now: u64) -> bool {
    let news = goes_on(key, by, kept, now) == Step::Update;
    if news {
        update(key, by, now);
    }
    news
}

/// Whether a pick was noted to give replies another way than through this node.
#[inline(always)]
pub fn is_direct(choice: &ChoiceValue) -> bool {
    choice.state & DIRECT != 0
}

/// The choice for the flow that a returned packet answers, noting the answer; `flags` as in [`Chooser`].
#[inline(always)]
pub fn answered(key: &FlowKey, flags: u8) -> Option<&'static ChoiceValue> {
    let now = conntrack::now();
    let (found, kept) = find(key);
    let found = found?;
    let next = conntrack::answered(found.state, key.protocol == TCP, flags);
    if found.is_news(next, now) {
        go_on(key, (found, kept), next, now);
    }
    Some(found)
}

/// Notes the answer to a flow whose entry is `known`; whether there was news.
#[inline(always)]
pub fn note_answer(key: &FlowKey, known: &ChoiceValue, flags: u8, now: u64) -> bool {
    let next = conntrack::answered(known.state, key.protocol == TCP, flags);
    let news = known.is_news(next, now);
    if news {
        let _ = answered(key, flags);
    }
    news
}

/// The choice for a flow, as it stands.
#[inline(always)]
pub fn known(key: &FlowKey) -> Option<&'static ChoiceValue> {
    established(key).or_else(|| recent(key))
}

/// The entry of a flow that is not established.
#[inline(always)]
pub fn recent(key: &FlowKey) -> Option<&'static ChoiceValue> {
    recent::find(key).map(|recent| &*recent)
}

/// What is behind a key into `BACKENDS`.
#[inline(always)]
pub fn backend(id: u32) -> Option<&'static BackendValue> {
    // SAFETY: values of a map without preallocation stay as they were until the program ends.
    unsafe { BACKENDS.get(id) }
}

#[inline(always)]
fn from_table(key: &FlowKey, service: &ServiceValue, now: u64) -> Option<(u32, &'static BackendValue)> {
    if affinity::is_remembered(service)
        && service.table_len != 0
        && let Some(found) = affinity::recall(key, service, now)
    {
        return Some(found);
    }
    let id = slot(key, service)?;
    Some((id, backend(id)?))
}

/// What the table says: a key into `BACKENDS`.
#[inline(always)]
fn slot(key: &FlowKey, service: &ServiceValue) -> Option<u32> {
    if service.table_len == 0 {
        return None;
    }
    let hash = if affinity::is_asked_for(service) { hash::client(&key.source) } else { hash::flow(key) };
    let slot = service.table_base + hash % service.table_len;
    Some(MAGLEV.get(slot / TABLE_BLOCK)?[(slot % TABLE_BLOCK) as usize])
}

/// What a further packet of a flow changes.
#[inline(always)]
fn goes_on(key: &FlowKey, by: &Chooser, known: &ChoiceValue, now: u64) -> Step {
    let next = conntrack::asked(known.state, key.protocol == TCP, by.flags);
    let same =
        known.client == by.client && known.ifindex == by.ifindex && u32::from(known.service) == by.service;
    if known.is_news(next, now) || !same { Step::Update } else { Step::Nothing }
}

/// Writes down a further packet of a flow.
#[inline(always)]
fn update(key: &FlowKey, by: &Chooser, now: u64) {
    let (found, kept) = find(key);
    let Some(found) = found else { return };
    found.client = by.client;
    found.ifindex = by.ifindex;
    found.service = by.service as u16;
    let next = conntrack::asked(found.state, key.protocol == TCP, by.flags);
    go_on(key, (found, kept), next, now);
}

/// Writes down the new state of a flow: in its entry if it is established, else where the copy was made; or it is from now on.
#[inline(always)]
fn go_on(key: &FlowKey, (found, kept): (&mut ChoiceValue, bool), next: u8, now: u64) {
    let settles = !kept && conntrack::settles(found.told(), next, now);
    events::changed(key, found, found.state, next);
    // SAFETY: a map value of the running program.
    unsafe { ChoiceValue::tell(found, (next, now)) };
    if !kept && (!settles || keep(key, found) == 0) {
        recent::change(key, found);
    }
}

/// Moves a flow to the second stage; 0 when there is no room.
#[inline(always)]
fn keep(key: &FlowKey, choice: &ChoiceValue) -> u64 {
    // Should another CPU have been faster, this is what is known last; what was found in the first stage must not stay there.
    let kept = CHOICES_KEPT.insert(key, choice, u64::from(BPF_ANY)).is_ok();
    if kept {
        recent::remove(key);
    }
    kept.into()
}

#[inline(always)]
fn forget(key: &FlowKey) {
    let _ = CHOICES_KEPT.remove(key);
    recent::remove(key);
}

#[inline(always)]
fn begin(pick: Pick, key: &FlowKey, service: &ServiceValue, by: &Chooser, now: u64) {
    let state = conntrack::asked(first_state(pick, key, service, by), key.protocol == TCP, by.flags);
    let choice = ChoiceValue {
        last_seen: now,
        backend: pick.id,
        client: by.client,
        ifindex: by.ifindex,
        state: state & !CONFIRMED,
        reserved: 0,
        service: by.service as u16,
    };
    // A choice that cannot be kept is made again, alike, for the next packet.
    recent::insert(key, &choice);
    count(Counter::NewFlow);
    traffic::flow_to_service(by.service);
    events::began(key, pick.id, service.number, by);
}

/// Whether answers are seen here: those of published ports come through this node unless they go straight to the client,
/// those of VIPs when they open or end a connection ([`crate::decap`]), and those of tasks of this node always
/// ([`crate::reverse::find`]). A connection whose opening was missed cannot wait for its answer.
#[inline(always)]
fn first_state(pick: Pick, key: &FlowKey, service: &ServiceValue, by: &Chooser) -> u8 {
    let here = pick.backend.is_some_and(|backend| backend.ifindex != 0);
    let seen = if here {
        true
    } else if key.scope == PUBLISHED {
        service.flags & service_flags::DIRECT == 0
    } else {
        conntrack::opens(by.flags)
    };
    if seen { 0 } else { DIRECT }
}
