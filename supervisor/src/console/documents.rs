//! What is made of the command line's definitions: completions and manual pages.

use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;

pub fn completions(shell: Shell, out: &mut impl Write) -> io::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bulkhead", &mut text);
    out.write_all(&text)
}

/// Of one command, named by its words, or of the whole; `false` if there is no such command.
pub fn manual(command: &[String], out: &mut impl Write) -> io::Result<bool> {
    let whole = built();
    let mut page = &whole;
    for word in command {
        match page.find_subcommand(word) {
            Some(found) => page = found,
            None => return Ok(false),
        }
    }
    out.write_all(&rendered(page)?)?;
    Ok(true)
}

/// A page for the whole and for each command, into `folder`.
pub fn manuals(folder: &Path) -> io::Result<()> {
    let mut open = vec![built()];
    while let Some(command) = open.pop() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        std::fs::write(folder.join(format!("{name}.1")), rendered(&command)?)?;
        open.extend(command.get_subcommands().filter(|c| c.get_name() != "help").cloned());
    }
    Ok(())
}

/// Each command has the name of its page.
fn built() -> Command {
    let mut whole = Cli::command();
    whole.build();
    whole
}

fn rendered(command: &Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(command.clone()).render(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(command: &str) -> String {
        let mut text = Vec::new();
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        assert!(manual(&words, &mut text).unwrap());
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn each_command_is_in_the_manual_and_has_a_page() {
        let whole = page("");
        for command in Cli::command().get_subcommands().filter(|c| c.get_name() != "help") {
            let name = command.get_name();
            assert!(whole.contains(name), "{name}");
            assert!(page(name).contains(&format!("bulkhead\\-{name}")), "{name}");
        }
        assert!(page("config reload").contains("no\\-wait"));
        assert!(!manual(&["sail".to_owned()], &mut Vec::new()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        manuals(folder.path()).unwrap();
        for page in ["bulkhead.1", "bulkhead-status.1", "bulkhead-config-reload.1"] {
            assert!(folder.path().join(page).is_file(), "{page}");
        }
    }

    #[test]
    fn shells_are_told_of_each_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            completions(shell, &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("restart") && text.contains("socket"), "{shell}");
        }
    }
}
