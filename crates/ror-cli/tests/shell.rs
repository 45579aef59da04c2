//! `completions`, `man`.

#![allow(clippy::unwrap_used)]

mod common;

use common::Shell;

const COMMANDS: [&str; 14] = [
    "list",
    "summary",
    "graph",
    "predict",
    "eval",
    "data",
    "lesion",
    "convert",
    "train",
    "ablate",
    "report",
    "bench",
    "completions",
    "man",
];

#[test]
fn every_shell_gets_a_script_that_names_every_command() {
    let shell = Shell::new();
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = shell.ok(&["completions", name]);
        for command in COMMANDS {
            assert!(script.contains(command), "{command} for {name}");
        }
        assert!(script.contains("stochastic-depth"), "{name}");
    }
    assert_eq!(shell.run(&["completions", "ksh"]).code, Some(2));
}

#[cfg(unix)]
#[test]
fn bash_completes_commands_and_options() {
    let shell = Shell::new();
    shell.write("ror.bash", shell.ok(&["completions", "bash"]));
    let completes = |words: &str, last: usize| {
        let script = format!(
            "source ./ror.bash; COMP_WORDS=({words}); COMP_CWORD={last}; \
             _ror ror \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{last}-1]}}\"; echo ${{COMPREPLY[@]}}"
        );
        let bash = std::process::Command::new("bash")
            .args(["-c", &script])
            .current_dir(shell.path("."))
            .output()
            .unwrap();
        String::from_utf8(bash.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(completes("ror tr", 1), "train");
    assert_eq!(completes("ror train --resu", 2), "--resume");
    assert_eq!(completes("ror train --recipe p", 3), "paper");
}

#[test]
fn every_command_has_a_manual_page() {
    let shell = Shell::new();
    std::fs::create_dir(shell.path("man1")).unwrap();
    shell.ok(&["man", "--out", "man1"]);
    let read = |name: &str| std::fs::read_to_string(shell.path("man1").join(name)).unwrap();
    let main = read("ror.1");
    assert_eq!(main, shell.ok(&["man"]));
    for command in COMMANDS {
        assert!(main.contains(&format!("ror\\-{command}(1)")), "{command}");
        let page = read(&format!("ror-{command}.1"));
        assert!(page.contains(&format!(".TH ror-{command} 1")), "{page}");
        assert!(page.contains(&format!("\\fBror {command}\\fR")), "{page}");
        assert_eq!(page, shell.ok(&["man", command]));
    }
    let info = read("ror-data-info.1");
    assert_eq!(info, shell.ok(&["man", "data", "info"]));
    let pages = std::fs::read_dir(shell.path("man1")).unwrap().count();
    assert_eq!(pages, COMMANDS.len() + 2);
}

#[test]
fn pages_go_only_where_they_can() {
    let shell = Shell::new();
    let error = shell.fails(&["man", "--out", "nowhere"]);
    assert!(error.contains("nowhere"), "{error}");
    let run = shell.run(&["man", "nonsense"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("`nonsense`"), "{}", run.stderr);
    assert_eq!(shell.run(&["man", "list", "--out", "."]).code, Some(2));
    assert!(shell.files().is_empty(), "{:?}", shell.files());
}
