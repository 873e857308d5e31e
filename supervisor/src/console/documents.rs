//! What is made of the command line's definitions: completions and manual pages.

use std::io::{self, Write};

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;

pub fn completions(shell: Shell, out: &mut impl Write) -> io::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bulkhead", &mut text);
    out.write_all(&text)
}

/// Of one command or of the whole; `false` if there is no such command.
pub fn manual(command: Option<&str>, out: &mut impl Write) -> io::Result<bool> {
    let mut whole = Cli::command();
    // Gives each command the name of its page.
    whole.build();
    let page = match command {
        None => whole,
        Some(name) => match whole.find_subcommand(name) {
            Some(found) => found.clone(),
            None => return Ok(false),
        },
    };
    let mut text = Vec::new();
    Man::new(page).render(&mut text)?;
    out.write_all(&text)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(command: Option<&str>) -> String {
        let mut text = Vec::new();
        assert!(manual(command, &mut text).unwrap());
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn each_command_is_in_the_manual_and_has_a_page() {
        let whole = page(None);
        for command in Cli::command().get_subcommands().filter(|c| c.get_name() != "help") {
            let name = command.get_name();
            assert!(whole.contains(name), "{name}");
            assert!(page(Some(name)).contains(&format!("bulkhead\\-{name}")), "{name}");
        }
        assert!(!manual(Some("sail"), &mut Vec::new()).unwrap());
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
