//! Columns.

/// Rows under a heading, padded to columns when printed.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

const GAP: usize = 3;

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(|&name| name.to_owned()).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let padding = width + GAP - cell.chars().count();
                line.push_str(cell);
                line.push_str(&" ".repeat(padding));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `Name:   value` lines with the values below each other.
pub(crate) fn pairs(indent: usize, pairs: &[(&str, String)]) -> String {
    let width = pairs
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0)
        + 1
        + GAP;
    let mut text = String::new();
    for (name, value) in pairs {
        for (index, line) in value.split('\n').enumerate() {
            let label = if index == 0 {
                format!("{name}:")
            } else {
                String::new()
            };
            let row = format!("{}{label:width$}{}", " ".repeat(indent), printable(line));
            text.push_str(row.trim_end());
            text.push('\n');
        }
    }
    text
}

/// Text of a runtime may hold anything; a terminal must not obey it.
fn printable(text: &str) -> String {
    let shown = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let shown: String = shown.collect();
    if shown.is_empty() {
        "<none>".to_owned()
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "AGE"]);
        table.row(["a-long-name".to_owned(), "5s".to_owned()]);
        table.row(["ü".to_owned(), String::new()]);
        assert_eq!(
            table.render(),
            "NAME          AGE\na-long-name   5s\nü             <none>\n"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["a\x1b[2Jb\n".to_owned()]);
        assert_eq!(table.render(), "NAME\na\u{fffd}[2Jb\u{fffd}\n");
    }

    #[test]
    fn pairs_stand_below_each_other() {
        let text = pairs(
            2,
            &[("Id", "x".to_owned()), ("Labels", "a=b\nc=d".to_owned())],
        );
        assert_eq!(text, "  Id:       x\n  Labels:   a=b\n            c=d\n");
    }
}
