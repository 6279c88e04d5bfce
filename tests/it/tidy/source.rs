//! The files of the repository, and what a source file without its tests says.

use std::path::{Path, PathBuf};

use super::lexer::{Token, tokens};

/// One source file.
pub struct Source {
    /// Its path in the repository.
    pub name: String,
    /// All of it.
    pub text: String,
    /// All of it without what is compiled for tests only.
    pub tokens: Vec<Token>,
    test_lines: usize,
    test_files: Vec<String>,
}

/// Where there is something to read for people and compilers.
const FOLDERS: &[&str] =
    &["src", "tests", "benches", "examples", "analysis", "pipelines", "scripts", ".ci", ".github"];

/// Every Rust file of `src/` that is not for tests only.
pub fn library() -> Vec<Source> {
    let sources: Vec<_> = all().into_iter().filter(|it| it.name.starts_with("src/")).collect();
    let tests: Vec<_> = sources.iter().flat_map(|it| it.test_files.clone()).collect();
    let for_tests = |it: &Source| {
        tests
            .iter()
            .any(|test| it.name == format!("{test}.rs") || it.name.starts_with(&format!("{test}/")))
    };
    sources.into_iter().filter(|it| !for_tests(it)).collect()
}

/// Every Rust file.
pub fn all() -> Vec<Source> {
    let rust = texts().into_iter().filter(|(name, _)| name.ends_with(".rs"));
    rust.map(|(name, text)| Source::new(&name, &text)).collect()
}

/// Every text file: name and content.
pub fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            files.push(path);
        }
    }
    let mut folders: Vec<_> = FOLDERS.iter().map(|folder| root.join(folder)).collect();
    folders.retain(|folder| folder.is_dir());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
    // What is not text has nothing to say here.
    files
        .iter()
        .filter_map(|path| Some((name(path), std::fs::read_to_string(path).ok()?)))
        .collect()
}

impl Source {
    /// Reads a file's text.
    pub fn new(name: &str, text: &str) -> Self {
        let mut source = Self {
            name: name.to_owned(),
            text: text.to_owned(),
            tokens: Vec::new(),
            test_lines: 0,
            test_files: Vec::new(),
        };
        source.strip_tests(tokens(text));
        source
    }

    /// Lines without those of test items.
    pub fn lines(&self) -> usize {
        self.text.lines().count() - self.test_lines
    }

    /// The module of the library that it belongs to: `engine` for `src/engine/judge/mod.rs`.
    pub fn module(&self) -> String {
        self.path().into_iter().next().unwrap_or_else(|| "lib".to_owned())
    }

    /// Every path into the library's own modules, at most two segments, with its line.
    pub fn uses(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            let is_path = self.colons(at + 1);
            let begins = at < 2 || !self.colons(at - 2);
            let base = match token.word() {
                Some("crate" | "tidegate") if is_path && begins => Vec::new(),
                Some("super") if is_path && begins => self.path(),
                _ => continue,
            };
            let (mut base, mut next) = (base, at);
            while self.tokens.get(next).is_some_and(|token| token.is_word("super")) {
                base.pop();
                next += 3;
            }
            if token.word() != Some("super") {
                next += 3;
            }
            self.tree(next, &base, &mut found);
        }
        found.retain(|(_, path)| !path.is_empty());
        found
    }

    /// What the file says to people: log lines and errors, with their lines.
    pub fn messages(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            let Some(word) = token.word() else { continue };
            let is = |offset: usize, sign| {
                self.tokens.get(at + offset).is_some_and(|token| token.is_sign(sign))
            };
            let log = matches!(word, "trace" | "debug" | "info" | "warn" | "error");
            let begin = if log && is(1, '!') && is(2, '(') {
                at + 2
            } else if word == "error" && at > 0 && self.tokens[at - 1].is_sign('[') && is(1, '(') {
                at + 1
            } else {
                continue;
            };
            let inside = &self.tokens[begin..self.close(begin)];
            // Fields stand before the message.
            let text = inside.iter().rev().find_map(|token| match token {
                Token::Text(text, line) => Some((*line, text.clone())),
                _ => None,
            });
            found.extend(text);
        }
        found
    }

    fn path(&self) -> Vec<String> {
        let inner = self.name.strip_prefix("src/").unwrap_or(&self.name);
        let inner = inner.strip_suffix(".rs").unwrap_or(inner);
        let inner = inner.strip_suffix("/mod").unwrap_or(inner);
        inner.split('/').map(str::to_owned).collect()
    }

    fn colons(&self, at: usize) -> bool {
        let is = |at: usize| self.tokens.get(at).is_some_and(|token| token.is_sign(':'));
        is(at) && is(at + 1)
    }

    /// Adds the paths of a use tree that starts at token `at`, under `base`; returns the token after it.
    fn tree(&self, at: usize, base: &[String], found: &mut Vec<(usize, String)>) -> usize {
        let Some(token) = self.tokens.get(at) else { return at };
        if token.is_sign('{') {
            let mut next = at + 1;
            while self.tokens.get(next).is_some_and(|token| !token.is_sign('}')) {
                next = self.tree(next, base, found).max(next + 1);
                while self
                    .tokens
                    .get(next)
                    .is_some_and(|token| !token.is_sign(',') && !token.is_sign('}'))
                {
                    next += 1;
                }
                if self.tokens.get(next).is_some_and(|token| token.is_sign(',')) {
                    next += 1;
                }
            }
            return next + 1;
        }
        let Some(word) = token.word() else {
            found.push((token.line(), short(base)));
            return at + 1;
        };
        let mut path = base.to_vec();
        if word != "self" {
            path.push(word.to_owned());
        }
        if self.colons(at + 1) {
            return self.tree(at + 3, &path, found);
        }
        found.push((token.line(), short(&path)));
        at + 1
    }

    /// The token that closes what token `open` opens.
    fn close(&self, open: usize) -> usize {
        close(&self.tokens, open)
    }

    fn strip_tests(&mut self, all: Vec<Token>) {
        let mut at = 0;
        while at < all.len() {
            if !is_test_attribute(&all, at) {
                self.tokens.push(all[at].clone());
                at += 1;
                continue;
            }
            let mut end = close(&all, at + 1) + 1;
            while end + 1 < all.len() && all[end].is_sign('#') {
                end = close(&all, end + 1) + 1;
            }
            let item = end;
            while end < all.len() && !all[end].is_sign(';') && !all[end].is_sign('{') {
                end += 1;
            }
            let in_other_file = all.get(end).is_some_and(|token| token.is_sign(';'));
            if in_other_file && all[item].is_word("mod") {
                let folder = self.folder();
                self.test_files.extend(all[item + 1].word().map(|name| format!("{folder}/{name}")));
            }
            let last = if in_other_file { end } else { close(&all, end) };
            let last = last.min(all.len() - 1);
            self.test_lines += all[last].line() + 1 - all[at].line();
            at = last + 1;
        }
    }

    /// Where the files of its inner modules are.
    fn folder(&self) -> String {
        let name = self.name.strip_suffix(".rs").unwrap_or(&self.name);
        let root = name.strip_suffix("/mod").or_else(|| name.strip_suffix("/lib"));
        root.or_else(|| name.strip_suffix("/main")).unwrap_or(name).to_owned()
    }
}

fn short(path: &[String]) -> String {
    path.iter().take(2).cloned().collect::<Vec<_>>().join("::")
}

/// `#[cfg(test)]`, also within `all(...)`; not `not(test)`.
fn is_test_attribute(all: &[Token], at: usize) -> bool {
    let is_cfg = all[at].is_sign('#')
        && all.get(at + 1).is_some_and(|token| token.is_sign('['))
        && all.get(at + 2).is_some_and(|token| token.is_word("cfg"));
    if !is_cfg {
        return false;
    }
    let inside = &all[at..close(all, at + 1)];
    let has = |word: &str| inside.iter().any(|token| token.is_word(word));
    has("test") && !has("not") && !has("any")
}

/// The token that closes what token `open` opens; the end if nothing does.
fn close(all: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in all.iter().enumerate().skip(open) {
        match token {
            Token::Sign('(' | '[' | '{', _) => depth += 1,
            Token::Sign(')' | ']' | '}', _) => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    all.len()
}
