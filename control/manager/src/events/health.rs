//! The pure part for tasks: whose health is another than before.

use std::collections::BTreeMap;

use mesh_store::State;

use super::diff::{Action, Change, What};
use crate::shared::Checked;

/// What is told of the tasks that are checked. One that is checked no more, or has ended, is not.
pub(crate) fn health_changes(old: &Checked, new: &Checked, state: &State) -> Vec<Change> {
    let news = new.iter().filter(|(task, now)| old.get(task).is_none_or(|was| was.health != now.health));
    let change = |endpoint: &mesh_types::Endpoint| {
        let node = state.nodes().find(|node| node.id == endpoint.node).map(|node| node.name.to_string());
        let service = endpoint.service.and_then(|id| Some(state.service(id)?.name.to_string()));
        let why = endpoint.health_note.as_ref().map(|note| note.as_str().to_owned());
        let said = [
            ("health", Some(endpoint.health.to_string())),
            ("why", why),
            ("node", node),
            ("service", service),
        ];
        Change {
            kind: What::Task,
            action: Action::Update,
            id: endpoint.task.to_string(),
            name: endpoint.name.to_string(),
            version: state.view_version(),
            attributes: said
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)))
                .collect::<BTreeMap<_, _>>(),
        }
    };
    news.map(|(_, endpoint)| change(endpoint)).collect()
}
