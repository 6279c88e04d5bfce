//! Just enough of Rust's grammar to tell words from text and comments.

/// One token and its line, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// An identifier, a keyword or a number.
    Word(String, usize),
    /// The inside of a string literal, as written.
    Text(String, usize),
    /// One punctuation character.
    Sign(char, usize),
}

impl Token {
    pub fn line(&self) -> usize {
        match self {
            Self::Word(_, line) | Self::Text(_, line) | Self::Sign(_, line) => *line,
        }
    }

    pub fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word, _) => Some(word),
            _ => None,
        }
    }

    pub fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }

    pub fn is_sign(&self, sign: char) -> bool {
        matches!(self, Self::Sign(found, _) if *found == sign)
    }
}

/// The tokens of a file, without comments, character literals and lifetimes.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { left: text, line: 1, tokens: Vec::new() };
    while !lexer.left.is_empty() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer<'t> {
    left: &'t str,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn step(&mut self) {
        let first = self.left.chars().next().expect("not empty");
        if self.left.starts_with("//") {
            self.take(self.left.find('\n').unwrap_or(self.left.len()));
        } else if self.left.starts_with("/*") {
            self.comment();
        } else if first == '"' {
            self.take(1);
            self.string();
        } else if first == '\'' {
            self.quote();
        } else if first.is_alphanumeric() || first == '_' {
            self.word();
        } else {
            let line = self.line;
            self.take(first.len_utf8());
            if !first.is_whitespace() {
                self.tokens.push(Token::Sign(first, line));
            }
        }
    }

    fn take(&mut self, bytes: usize) -> String {
        let (taken, left) = self.left.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.left = left;
        taken.to_owned()
    }

    fn comment(&mut self) {
        let mut depth = 0;
        while !self.left.is_empty() {
            if self.left.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.left.starts_with("*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    return;
                }
            } else {
                let bytes = self.left.chars().next().map_or(0, char::len_utf8);
                self.take(bytes);
            }
        }
    }

    fn string(&mut self) {
        let line = self.line;
        let mut escaped = false;
        let end = self.left.find(|letter| {
            let ends = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            ends
        });
        let text = self.take(end.unwrap_or(self.left.len()));
        self.take(self.left.len().min(1));
        self.tokens.push(Token::Text(text, line));
    }

    /// A character literal or a lifetime: neither matters.
    fn quote(&mut self) {
        let mut letters = self.left.chars().skip(1);
        match (letters.next(), letters.next()) {
            (Some('\\'), Some(escaped)) => {
                let after = 2 + escaped.len_utf8();
                let end =
                    self.left[after..].find('\'').map_or(self.left.len(), |at| after + at + 1);
                self.take(end);
            }
            (Some(letter), Some('\'')) => {
                self.take(2 + letter.len_utf8());
            }
            _ => {
                let name = |letter: char| letter.is_alphanumeric() || letter == '_';
                let end = self.left[1..].find(|letter| !name(letter));
                self.take(end.map_or(self.left.len(), |at| at + 1));
            }
        }
    }

    fn word(&mut self) {
        let line = self.line;
        let end = self.left.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let word = self.take(end.unwrap_or(self.left.len()));
        let raw = matches!(word.as_str(), "r" | "br" | "cr");
        let hashes = self.left.len() - self.left.trim_start_matches('#').len();
        if raw && self.left[hashes..].starts_with('"') {
            self.take(hashes + 1);
            let close = format!("\"{}", "#".repeat(hashes));
            let text = self.take(self.left.find(&close).unwrap_or(self.left.len()));
            self.take(self.left.len().min(close.len()));
            self.tokens.push(Token::Text(text, line));
        } else if matches!(word.as_str(), "b" | "c") && self.left.starts_with('"') {
            self.take(1);
            self.string();
        } else if raw && hashes == 1 {
            self.take(1);
        } else {
            self.tokens.push(Token::Word(word, line));
        }
    }
}
