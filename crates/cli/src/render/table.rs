//! Tables without lines: a heading, columns apart by two blanks, numbers to the right.

use console::{Alignment, measure_text_width, pad_str, style};
use std::fmt::Display;

/// A table under construction.
pub struct Table {
    columns: Vec<Alignment>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A heading that begins with `>` makes its column a column of numbers.
    pub fn new(headings: &[&str]) -> Self {
        let align = |h: &&str| if h.starts_with('>') { Alignment::Right } else { Alignment::Left };
        let heading = headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        Table { columns: headings.iter().map(align).collect(), rows: vec![heading] }
    }

    pub fn row<T: Display>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|cell| cell.to_string()).collect());
    }

    /// Whether there is nothing but the heading.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The table, without blanks at line ends and without a line end after the last row.
    pub fn render(&self) -> String {
        let cell_width =
            |row: &Vec<String>, at: usize| row.get(at).map_or(0, |cell| measure_text_width(cell));
        let widths: Vec<_> = (0..self.columns.len())
            .map(|at| self.rows.iter().map(|row| cell_width(row, at)).max().unwrap_or(0))
            .collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(self.columns.iter().zip(&widths));
            let padded: Vec<_> =
                cells.map(|(cell, (align, width))| pad_str(cell, *width, *align, None)).collect();
            padded.join("  ").trim_end().to_owned()
        };
        let mut lines = self.rows.iter().map(line);
        let heading = lines.next().map(|text| style(text).bold().to_string());
        heading.into_iter().chain(lines).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        console::set_colors_enabled(false);
        let mut table = Table::new(&["NAME", ">SIZE", "STATE"]);
        table.row(["uploads", "1.20 GiB", "complete"]);
        table.row(["db", "8 B", ""]);
        assert_eq!(
            table.render(),
            "NAME         SIZE  STATE\nuploads  1.20 GiB  complete\ndb            8 B"
        );
    }
}
