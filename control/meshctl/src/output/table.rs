//! Tables in the look of docker's, as wide as the terminal.
//!
//! What is no terminal gets a line for each row, however long. On a terminal that is too narrow columns stand closer, then
//! cells wrap between words, then the columns that matter least are left out, and at last each row becomes a block of
//! lines. No word is ever broken: half an address is none.

use unicode_width::UnicodeWidthStr;

use super::Cell;

/// Columns of the terminal between cells.
const GAP: usize = 3;
/// The same where there is little room.
const NARROW_GAP: usize = 2;

/// A table without borders.
#[derive(Debug, Default)]
pub struct Table {
    headings: Vec<String>,
    /// Those that may be left out, by their headings.
    optional: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// With a line of headings.
    pub fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|&heading| super::plain(heading)).collect();
        Self { headings, ..Self::default() }
    }

    /// Without headings.
    pub fn bare() -> Self {
        Self::default()
    }

    /// Columns to leave out where they do not fit, the first one first.
    pub fn optional(mut self, headings: &[&'static str]) -> Self {
        self.optional = headings.to_vec();
        self
    }

    /// Adds a line.
    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Whether it has no lines but its headings.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As text, every line ended, as wide as the terminal.
    pub fn render(self) -> String {
        let width = super::terminal_width();
        self.render_within(width)
    }

    /// The same with as many columns as given; none for as many as it takes.
    pub fn render_within(self, width: Option<usize>) -> String {
        let mut columns: Vec<usize> = (0..self.width_of(Vec::len)).collect();
        let natural = |column: &usize| self.measure(*column, |cell| cell.text.width());
        let Some(width) = width else {
            return self.draw(&columns, &columns.iter().map(natural).collect::<Vec<_>>(), GAP);
        };
        for gap in [GAP, NARROW_GAP] {
            let widths: Vec<_> = columns.iter().map(natural).collect();
            if total(&widths, gap) <= width {
                return self.draw(&columns, &widths, gap);
            }
        }
        let mut optional = self.optional.iter();
        loop {
            let least: Vec<_> = columns.iter().map(|&column| self.measure(column, longest_word)).collect();
            if total(&least, NARROW_GAP) <= width {
                let wanted: Vec<_> = columns.iter().map(natural).collect();
                return self.draw(&columns, &share(&least, &wanted, width), NARROW_GAP);
            }
            match optional.next() {
                Some(heading) => {
                    columns.retain(|&column| self.headings.get(column).is_none_or(|h| h != heading))
                }
                None => return self.blocks(),
            }
        }
    }

    /// How many columns the widest line has.
    fn width_of(&self, cells: impl Fn(&Vec<Cell>) -> usize) -> usize {
        self.rows.iter().map(cells).chain([self.headings.len()]).max().unwrap_or_default()
    }

    /// The largest `size` of what stands in a column.
    fn measure(&self, column: usize, size: impl Fn(&Cell) -> usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(&size);
        let heading = self.headings.get(column).map(|heading| size(&Cell::new(heading)));
        cells.chain(heading).max().unwrap_or_default()
    }

    fn draw(&self, columns: &[usize], widths: &[usize], gap: usize) -> String {
        let heading: Vec<Cell> = self.headings.iter().map(Cell::new).collect();
        let heading = (!heading.is_empty()).then_some(&heading);
        let mut text = String::new();
        for row in heading.into_iter().chain(&self.rows) {
            let cells: Vec<_> = columns.iter().map(|&column| row.get(column)).collect();
            let wrapped: Vec<Vec<&str>> = cells
                .iter()
                .zip(widths)
                .map(|(cell, width)| wrap(cell.map_or("", |cell| &cell.text), *width))
                .collect();
            for line in 0..wrapped.iter().map(Vec::len).max().unwrap_or_default() {
                let mut pending = 0;
                for ((cell, lines), width) in cells.iter().zip(&wrapped).zip(widths) {
                    let part = lines.get(line).copied().unwrap_or_default();
                    if !part.is_empty() {
                        let style = cell.map(|cell| cell.style).unwrap_or_default();
                        text.push_str(&format!("{:pending$}{style}{part}{style:#}", ""));
                        pending = 0;
                    }
                    pending += width.saturating_sub(part.width()) + gap;
                }
                text.push('\n');
            }
        }
        text
    }

    /// Each row for itself, a line for each cell.
    fn blocks(&self) -> String {
        let block = |row: &Vec<Cell>| -> String {
            let line = |(column, cell): (usize, &Cell)| {
                let (style, text) = (cell.style, &cell.text);
                match self.headings.get(column) {
                    Some(heading) => format!("{heading}: {style}{text}{style:#}\n"),
                    None => format!("{style}{text}{style:#}\n"),
                }
            };
            row.iter().enumerate().map(line).collect()
        };
        let between = if self.headings.is_empty() { "" } else { "\n" };
        self.rows.iter().map(block).collect::<Vec<_>>().join(between)
    }
}

fn total(widths: &[usize], gap: usize) -> usize {
    widths.iter().sum::<usize>() + gap * widths.len().saturating_sub(1)
}

/// Gives the columns what there is: at least the least, and of the rest first what those want that want little.
fn share(least: &[usize], wanted: &[usize], width: usize) -> Vec<usize> {
    let mut widths = least.to_vec();
    let mut left = width.saturating_sub(total(least, NARROW_GAP));
    let mut wishes: Vec<_> = widths.iter_mut().zip(wanted).collect();
    wishes.sort_by_key(|(width, wanted)| wanted.saturating_sub(**width));
    for (width, wanted) in wishes {
        let more = wanted.saturating_sub(*width).min(left);
        *width += more;
        left -= more;
    }
    widths
}

fn longest_word(cell: &Cell) -> usize {
    if cell.whole {
        return cell.text.width();
    }
    cell.text.split_whitespace().map(UnicodeWidthStr::width).max().unwrap_or_default()
}

/// In lines of at most `width`, broken between words only.
pub(super) fn wrap(text: &str, width: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while rest.width() > width {
        let fits = |end: &usize| rest.get(..*end).is_some_and(|line| line.width() <= width);
        let breaks = rest.match_indices(' ').map(|(place, _)| place);
        let mut breaks = breaks.skip_while(|place| *place == 0).peekable();
        let Some(first) = breaks.peek().copied() else { break };
        let end = breaks.take_while(fits).last().unwrap_or(first);
        let (line, more) = rest.split_at(end);
        lines.push(line.trim_end());
        rest = more.trim_start();
    }
    lines.push(rest);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Table {
        let mut table = Table::new(&["ID", "NAME", "NETWORKS", "LAG"]).optional(&["LAG", "NETWORKS"]);
        table.row(["2svc00000000", "db", "prod, test, a-long-one", "1.2 s"]);
        table.row(["1svc00000000", "web", "prod", "-"]);
        table
    }

    #[test]
    fn what_is_no_terminal_gets_it_whole() {
        let text = "\
ID             NAME   NETWORKS                 LAG
2svc00000000   db     prod, test, a-long-one   1.2 s
1svc00000000   web    prod                     -
";
        assert_eq!(nodes().render_within(None), text);
        assert_eq!(nodes().render_within(Some(52)), text);
    }

    #[test]
    fn a_narrow_terminal_first_takes_from_the_gaps() {
        let text = nodes().render_within(Some(50));
        assert!(text.starts_with("ID            NAME  NETWORKS                LAG\n"), "{text}");
    }

    #[test]
    fn then_cells_wrap_between_words() {
        let text = "\
ID            NAME  NETWORKS     LAG
2svc00000000  db    prod, test,  1.2 s
                    a-long-one
1svc00000000  web   prod         -
";
        assert_eq!(nodes().render_within(Some(38)), text);
    }

    #[test]
    fn then_columns_go_and_at_last_rows_become_blocks() {
        let text = "\
ID            NAME  NETWORKS
2svc00000000  db    prod, test,
                    a-long-one
1svc00000000  web   prod
";
        assert_eq!(nodes().render_within(Some(31)), text);
        assert_eq!(
            nodes().render_within(Some(20)),
            "ID            NAME\n2svc00000000  db\n1svc00000000  web\n"
        );
        assert_eq!(
            nodes().render_within(Some(10)),
            "\
ID: 2svc00000000
NAME: db
NETWORKS: prod, test, a-long-one
LAG: 1.2 s

ID: 1svc00000000
NAME: web
NETWORKS: prod
LAG: -
"
        );
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_but_blocks() {
        for width in 18..60 {
            let text = nodes().render_within(Some(width));
            assert!(text.lines().all(|line| line.width() <= width), "{width}: {text}");
            assert!(text.lines().all(|line| line.trim_end() == line), "{width}: {text}");
        }
    }

    #[test]
    fn wide_and_steering_characters() {
        let mut table = Table::new(&["NAME", "LABEL"]);
        table.row(["日本", "a"]);
        table.row(["x", "\u{1b}[2J\r\n\u{202e}b"]);
        assert_eq!(table.render_within(None), "NAME   LABEL\n日本   a\nx      \\u{1b}[2J\\r\\n\\u{202e}b\n");
    }

    #[test]
    fn words_that_are_longer_than_a_line_stay_whole() {
        assert_eq!(wrap("a fd00::1234:5678 b", 6), ["a", "fd00::1234:5678", "b"]);
        assert_eq!(wrap("", 3), [""]);
        assert_eq!(wrap("a  b", 2), ["a", "b"]);
    }
}
