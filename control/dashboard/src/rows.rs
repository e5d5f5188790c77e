//! What lists can be filtered and ordered by.

use std::cmp::Ordering;

use serde::Serialize;

use crate::model::{Event, Network, Node, Rates, Service, Task};

/// A row of a list.
pub(crate) trait Row: Serialize {
    /// What words of a filter are looked for in.
    fn texts(&self) -> Vec<&str>;
    /// The values that `key:value` means; none for a key that there is not.
    fn field(&self, key: &str) -> Option<Vec<&str>>;
    /// By what a column is ordered.
    fn order(&self, column: &str) -> Order<'_>;
}

/// See [`Row::order`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Order<'a> {
    /// As people order names: `web.2` before `web.10`.
    Text(&'a str),
    /// By size.
    Number(f64),
}

impl Order<'_> {
    /// Which of two rows comes first.
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => natural(a, b),
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
        }
    }
}

/// Digits by their value, all else by its bytes.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a.as_bytes(), b.as_bytes());
    loop {
        let ((head_x, rest_x), (head_y, rest_y)) = (part(x), part(y));
        let order = match (number(head_x), number(head_y)) {
            (Some(n), Some(m)) => n.cmp(&m).then(head_x.len().cmp(&head_y.len())),
            _ => head_x.cmp(head_y),
        };
        if order.is_ne() || (head_x.is_empty() && head_y.is_empty()) {
            return order;
        }
        (x, y) = (rest_x, rest_y);
    }
}

/// The digits, or what is before them, and the rest.
fn part(text: &[u8]) -> (&[u8], &[u8]) {
    let digits = text.first().is_some_and(u8::is_ascii_digit);
    let end = text.iter().position(|byte| byte.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

fn number(digits: &[u8]) -> Option<u128> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn bytes(rates: Option<&Rates>) -> Order<'static> {
    Order::Number(rates.map_or(-1.0, Rates::bytes))
}

fn drops(rates: Option<&Rates>) -> Order<'static> {
    Order::Number(rates.map_or(-1.0, |rates| rates.drops))
}

fn latency(millis: Option<f64>) -> Order<'static> {
    Order::Number(millis.unwrap_or(-1.0))
}

fn count(number: usize) -> Order<'static> {
    Order::Number(u32::try_from(number).map_or(f64::MAX, f64::from))
}

fn all(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

impl Row for Node {
    fn texts(&self) -> Vec<&str> {
        vec![&self.name, &self.id, &self.role, &self.status, &self.availability, &self.address]
    }

    fn field(&self, key: &str) -> Option<Vec<&str>> {
        let value = match key {
            "name" => &self.name,
            "id" => &self.id,
            "role" => &self.role,
            "status" => &self.status,
            "availability" => &self.availability,
            "address" => &self.address,
            _ => return None,
        };
        Some(vec![value])
    }

    fn order(&self, column: &str) -> Order<'_> {
        match column {
            "status" => Order::Text(&self.status),
            "role" => Order::Text(&self.role),
            "availability" => Order::Text(&self.availability),
            "address" => Order::Text(&self.address),
            "tasks" => count(self.tasks),
            "rate" => bytes(self.rates.as_ref()),
            "drops" => drops(self.rates.as_ref()),
            "latency" => latency(self.latency_ms),
            _ => Order::Text(&self.name),
        }
    }
}

impl Row for Network {
    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.name.as_str(), &self.id];
        texts.extend(all(&self.subnets));
        texts.extend(all(&self.traits));
        texts
    }

    fn field(&self, key: &str) -> Option<Vec<&str>> {
        match key {
            "name" => Some(vec![&self.name]),
            "id" => Some(vec![&self.id]),
            "subnet" => Some(all(&self.subnets)),
            "is" => Some(all(&self.traits)),
            _ => None,
        }
    }

    fn order(&self, column: &str) -> Order<'_> {
        match column {
            "vni" => Order::Number(self.vni.into()),
            "subnets" => Order::Text(self.subnets.first().map_or("", String::as_str)),
            "tasks" => count(self.tasks),
            "services" => count(self.services),
            "rate" => bytes(self.rates.as_ref()),
            _ => Order::Text(&self.name),
        }
    }
}

impl Row for Service {
    fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.name.as_str(), &self.id, &self.state, &self.mode];
        texts.extend(all(&self.networks));
        texts.extend(all(&self.vips));
        texts.extend(self.ports.iter().map(|port| port.text.as_str()));
        texts
    }

    fn field(&self, key: &str) -> Option<Vec<&str>> {
        match key {
            "name" => Some(vec![&self.name]),
            "id" => Some(vec![&self.id]),
            "state" => Some(vec![&self.state]),
            "mode" => Some(vec![&self.mode]),
            "network" => Some(all(&self.networks)),
            "port" => Some(self.ports.iter().filter_map(|p| p.text.split([':', '/']).next()).collect()),
            _ => None,
        }
    }

    fn order(&self, column: &str) -> Order<'_> {
        match column {
            "state" => Order::Text(&self.state),
            "tasks" => count(self.tasks),
            "ports" => Order::Text(self.ports.first().map_or("", |port| &port.text)),
            "rate" => bytes(self.rates.as_ref()),
            "drops" => drops(self.rates.as_ref()),
            "latency" => latency(self.latency_ms),
            _ => Order::Text(&self.name),
        }
    }
}

impl Row for Task {
    fn texts(&self) -> Vec<&str> {
        let mut texts =
            vec![self.name.as_str(), &self.id, &self.service, &self.node, &self.state, &self.health];
        texts.extend(all(&self.networks));
        texts.extend(all(&self.addresses));
        texts
    }

    fn field(&self, key: &str) -> Option<Vec<&str>> {
        match key {
            "name" => Some(vec![&self.name]),
            "id" => Some(vec![&self.id]),
            "service" => Some(vec![&self.service, &self.service_id]),
            "node" => Some(vec![&self.node]),
            "state" => Some(vec![&self.state]),
            "health" => Some(vec![&self.health]),
            "network" => Some(all(&self.networks)),
            "address" => Some(all(&self.addresses)),
            _ => None,
        }
    }

    fn order(&self, column: &str) -> Order<'_> {
        match column {
            "service" => Order::Text(&self.service),
            "node" => Order::Text(&self.node),
            "state" => Order::Text(if self.health.is_empty() { &self.state } else { &self.health }),
            "addresses" => Order::Text(self.addresses.first().map_or("", String::as_str)),
            "weight" => Order::Number(self.weight.into()),
            "rate" => bytes(self.rates.as_ref()),
            "drops" => drops(self.rates.as_ref()),
            "latency" => latency(self.latency_ms),
            _ => Order::Text(&self.name),
        }
    }
}

impl Row for Event {
    fn texts(&self) -> Vec<&str> {
        vec![&self.name, &self.id, &self.kind, &self.action, &self.detail]
    }

    fn field(&self, key: &str) -> Option<Vec<&str>> {
        match key {
            "name" => Some(vec![&self.name]),
            "id" => Some(vec![&self.id]),
            "kind" => Some(vec![&self.kind]),
            "action" => Some(vec![&self.action]),
            _ => None,
        }
    }

    fn order(&self, column: &str) -> Order<'_> {
        match column {
            "kind" => Order::Text(&self.kind),
            "name" => Order::Text(&self.name),
            "action" => Order::Text(&self.action),
            // Far below 2^52.
            _ => Order::Number(-(self.number as f64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_people_s_order() {
        let mut names = ["web.10", "web.2", "api", "web", "web.02", "9", "10", "web.2a", ""];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["", "9", "10", "api", "web", "web.2", "web.2a", "web.02", "web.10"]);
        let long = "9".repeat(60);
        assert!(natural(&long, "1").is_gt());
    }
}
