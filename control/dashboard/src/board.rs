//! A model with what makes looking things up in it quick, and the windows of its lists.

use serde::Serialize;

use crate::{Model, rows::Row};

/// The most rows of one window.
const LARGEST: usize = 200;
/// The most characters of a filter that count.
const FILTER: usize = 200;

/// See the module.
pub(crate) struct Board {
    /// What is shown.
    pub model: Model,
    /// What words are looked for in, by list and row, in small letters.
    texts: Texts,
}

struct Texts {
    nodes: Vec<String>,
    networks: Vec<String>,
    services: Vec<String>,
    tasks: Vec<String>,
    events: Vec<String>,
}

/// What of a list is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// Words that a row has all of; `key:value` means just that field.
    pub filter: String,
    /// The column.
    pub sort: String,
    /// The other way round.
    pub descending: bool,
    /// The first row.
    pub offset: usize,
    /// How many.
    pub limit: usize,
}

/// The rows that were asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Window<'a, T> {
    /// Rows that there are.
    pub total: usize,
    /// Of these, rows that the filter admits.
    pub matched: usize,
    /// Which of them is the first here.
    pub offset: usize,
    pub rows: Vec<&'a T>,
}

impl Board {
    /// Of a model.
    pub fn new(model: Model) -> Self {
        let texts = Texts {
            nodes: texts(&model.nodes),
            networks: texts(&model.networks),
            services: texts(&model.services),
            tasks: texts(&model.tasks),
            events: texts(&model.events),
        };
        Self { model, texts }
    }

    pub fn nodes(&self, query: &Query) -> Window<'_, crate::Node> {
        window(&self.model.nodes, &self.texts.nodes, query, |_| true)
    }

    pub fn networks(&self, query: &Query) -> Window<'_, crate::Network> {
        window(&self.model.networks, &self.texts.networks, query, |_| true)
    }

    pub fn services(&self, query: &Query) -> Window<'_, crate::Service> {
        window(&self.model.services, &self.texts.services, query, |_| true)
    }

    pub fn tasks(&self, query: &Query) -> Window<'_, crate::Task> {
        window(&self.model.tasks, &self.texts.tasks, query, |_| true)
    }

    pub fn tasks_of(&self, service: &str, query: &Query) -> Window<'_, crate::Task> {
        window(&self.model.tasks, &self.texts.tasks, query, |task| task.service_id == service)
    }

    pub fn events(&self, query: &Query) -> Window<'_, crate::Event> {
        window(&self.model.events, &self.texts.events, query, |_| true)
    }
}

fn texts<T: Row>(rows: &[T]) -> Vec<String> {
    // What is between the texts is in no word.
    rows.iter().map(|row| row.texts().join("\n").to_lowercase()).collect()
}

fn window<'a, T: Row>(
    rows: &'a [T],
    texts: &[String],
    query: &Query,
    belongs: impl Fn(&T) -> bool,
) -> Window<'a, T> {
    let filter: String = query.filter.chars().take(FILTER).collect::<String>().to_lowercase();
    let words: Vec<&str> = filter.split_whitespace().collect();
    let of_list = rows.iter().zip(texts).filter(|(row, _)| belongs(row));
    let mut total = 0;
    let mut admitted: Vec<&T> = of_list
        .inspect(|_| total += 1)
        .filter(|(row, text)| words.iter().all(|word| admits(*row, text, word)))
        .map(|(row, _)| row)
        .collect();
    admitted.sort_by(|a, b| {
        let order = a.order(&query.sort).compare(&b.order(&query.sort));
        let order = if query.descending { order.reverse() } else { order };
        order.then_with(|| a.order("").compare(&b.order("")))
    });
    let matched = admitted.len();
    let limit = query.limit.clamp(1, LARGEST);
    // The last window rather than none, when the list has become shorter.
    let offset = query.offset.min(matched.saturating_sub(1));
    let rows = admitted.into_iter().skip(offset).take(limit).collect();
    Window { total, matched, offset, rows }
}

fn admits<T: Row>(row: &T, text: &str, word: &str) -> bool {
    let field = word.split_once(':').and_then(|(key, value)| Some((row.field(key)?, value)));
    match field {
        Some((values, wanted)) => values.iter().any(|value| value.to_lowercase() == wanted),
        None => text.contains(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rates, Task};

    fn board() -> Board {
        let task = |n: u32| Task {
            id: format!("id{n}"),
            name: format!("web.{n}"),
            service: if n.is_multiple_of(2) { "web" } else { "API" }.to_owned(),
            service_id: (n % 2).to_string(),
            node: format!("n{}", n % 10),
            health: if n == 7 { "unhealthy" } else { "healthy" }.to_owned(),
            rates: (n != 3).then(|| Rates { bytes_in: f64::from(n % 50), ..Rates::default() }),
            ..Task::default()
        };
        Board::new(Model { tasks: (0..1000).map(task).collect(), ..Model::default() })
    }

    fn names(window: &Window<'_, Task>) -> Vec<String> {
        window.rows.iter().map(|task| task.name.clone()).collect()
    }

    fn query(filter: &str) -> Query {
        Query { filter: filter.to_owned(), limit: 3, ..Query::default() }
    }

    #[test]
    fn words_and_fields_filter() {
        let board = board();
        let all = board.tasks(&query(""));
        assert_eq!(
            (all.total, all.matched, names(&all)),
            (1000, 1000, vec!["web.0".into(), "web.1".into(), "web.2".into()])
        );
        assert_eq!(names(&board.tasks(&query("  WEB.77 api "))), ["web.77", "web.771", "web.773"]);
        assert_eq!(names(&board.tasks(&query("health:unhealthy"))), ["web.7"]);
        assert_eq!(board.tasks(&query("health:health")).matched, 0, "a field is meant whole");
        assert_eq!(board.tasks(&query("node:n1 service:api")).matched, 100);
        assert_eq!(board.tasks_of("1", &query("")).total, 500);
        for nonsense in ["x:y", "(((", "\u{0}", "status:", ":", &"a".repeat(100_000)] {
            let found = board.tasks(&query(nonsense));
            assert_eq!((found.matched, found.rows.len()), (0, 0), "{nonsense:.20}");
        }
    }

    #[test]
    fn windows_are_bounded_and_in_order() {
        let board = board();
        let asked = Query { sort: "rate".into(), descending: true, limit: 2, ..Query::default() };
        assert_eq!(names(&board.tasks(&asked)), ["web.49", "web.99"]);
        let first = Query { descending: false, limit: 1, ..asked };
        assert_eq!(names(&board.tasks(&first)), ["web.3"], "what is not known is least");
        let greedy = Query { limit: usize::MAX, ..Query::default() };
        assert_eq!(board.tasks(&greedy).rows.len(), LARGEST);
        let beyond = Query { offset: usize::MAX, limit: 10, ..Query::default() };
        let window = board.tasks(&beyond);
        assert_eq!((window.offset, names(&window)), (999, vec!["web.999".to_owned()]));
        assert_eq!(
            names(&board.tasks(&Query { sort: "nonsense".into(), limit: 1, ..Query::default() })),
            ["web.0"]
        );
    }
}
