//! Columns that stand below each other; pure.

use shared::text::clean;

/// Longest cell: what is longer is cut, so that a row stays a row.
const MAX_CELL_BYTES: usize = 400;

#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell, MAX_CELL_BYTES)).collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// Each row with its line break.
    pub(super) fn lines(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            format!("{}\n", line.trim_end())
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_are_harmless() {
        let mut table = Table::new(&["A", "LONG", "B"]);
        assert!(table.is_empty());
        table.row(["äöü".to_owned(), "x\n\u{1b}[2J".to_owned(), String::new()]);
        table.row(["y".to_owned(), String::new(), "z".to_owned()]);
        let expected = "A    LONG    B\näöü  x  [2J\ny            z\n";
        assert_eq!(table.lines(), expected);
    }
}
