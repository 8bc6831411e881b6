use super::*;
use proptest::prelude::*;

fn check(source: &str) -> Result<(), ExpressionError> {
    Checker::default().check(source)
}

#[test]
fn one_checker_checks_many() {
    let mut checker = Checker::default();
    for n in 0..100 {
        assert_eq!(checker.check(&format!("budget_used > {n}")), Ok(()));
        let wrong = checker.check(&format!("{}nope", " ".repeat(n)));
        let message = "there is no variable 'nope'".to_owned();
        assert_eq!(wrong, Err(ExpressionError::At { line: 1, column: n + 1, message }));
        assert_eq!(checker.check(""), Ok(()));
        assert_eq!(checker.check(&"x".repeat(SOURCE_BYTES_MAX + 1)), Err(ExpressionError::TooLong));
    }
}

#[test]
fn conditions_are_accepted() {
    for good in [
        "",
        "  ",
        "true",
        "false",
        "stream",
        "model == 'gpt-4o' && budget_used > 80",
        "headers['x-tier'] in ['a', 'b'] || 'x-tier' in headers",
        "has(headers.tier) && headers.tier == \"premium\"",
        "params['debug'] != '' ? model.startsWith('gpt') : !stream",
        "model.contains('4o') || model.endsWith('mini') || model.matches('^o[0-9]')",
        "virtual_key_id == '' && team_name != customer_name && user_id == complexity_tier",
        "virtual_key_budget_used + team_budget_used > customer_budget_used * 2.0",
        "tokens_used >= 99.5 || request > 10 || input_tokens > 100000",
        "size(model) > 3 && model.size() < 20 && int('3') == 3",
        "['a', 'b'].exists(x, x == model) && !['c'].all(x, x.startsWith(provider))",
        "['a'].filter(x, x == model).size() == 1 || ['a'].exists_one(x, x == model)",
        "body.metadata.user == 'x' && body['n'] == 1",
        "body.safe",
        "provider_health[provider] > 0.5",
        "now.getHours() < 6 && now.getDayOfWeek('Europe/Berlin') == 0",
        "now - duration('1h') > timestamp('2026-01-01T00:00:00Z')",
        "type(body.n) == int && dyn(1) == 1.0",
        "{'a': 1}['a'] == 1",
        "request_type == 'embedding' // a remark",
        "model == 'ünïcode ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((('",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    let long: Vec<String> = (0..150).map(|n| format!("model == 'model-{n}'")).collect();
    assert_eq!(check(&long.join(" || ")), Ok(()));
}

#[test]
fn everything_else_is_refused_with_its_place() {
    let mut wrong = Vec::new();
    let mut check = |source: &str, line: usize, column: usize, message: &str| {
        let error = check(source).expect_err(source).to_string();
        let expected = format!("at line {line}, column {column} of the expression: {message}");
        if !error.starts_with(&expected) {
            wrong.push(format!("{source}\n{error}\n{expected}"));
        }
    };
    // No syntax.
    check("model ==", 1, 9, "Syntax error");
    check("model = 'a'", 1, 7, "Syntax error");
    check("true &&\n  'a", 2, 3, "Syntax error");
    // Names that are not there.
    check("modell == 'a'", 1, 1, "there is no variable 'modell'");
    check("true &&\n  budget > 80", 2, 3, "there is no variable 'budget'");
    check("'ü' == model || nope", 1, 17, "there is no variable 'nope'");
    check("request.model == 'a' && x.y.z", 1, 25, "there is no variable 'x'");
    check("['a'].exists(x, x == y)", 1, 22, "there is no variable 'y'");
    check("['a'].exists(x, x == 'a') && x == 'a'", 1, 30, "there is no variable 'x'");
    check("@result", 1, 1, "");
    check("model.lowerAscii() == 'a'", 1, 17, "there is no function 'lowerAscii'");
    check("startsWith(model, 'a')", 1, 11, "the function 'startsWith' stands behind a value");
    check("model.int() == 1", 1, 10, "the function 'int' stands alone");
    check("model.startsWith()", 1, 17, "the function 'startsWith' does not take 0 arguments");
    check("has(model)", 1, 5, "invalid argument to has() macro");
    check("model.exists(x)", 1, 13, "'exists' is written as list.exists(item, condition)");
    check("google.Thing{a: 1} == 1", 1, 13, "there is no type 'google.Thing' to make");
    // No condition.
    let not = |what: &str| format!("a rule's condition is true or false, and this is {what}");
    check("1", 1, 1, &not("a number"));
    check("'true'", 1, 1, &not("a text"));
    check("null", 1, 1, &not("something else"));
    check("['a']", 1, 1, &not("a list"));
    check("{'a': true}", 1, 1, &not("a map"));
    check("budget_used + 1", 1, 13, &not("a number"));
    check("-1.5", 1, 2, &not("a number"));
    check("-budget_used", 1, 1, &not("a number"));
    check("model", 1, 1, &not("a text"));
    check("headers", 1, 1, &not("a map"));
    check("headers.tier", 1, 8, &not("a text"));
    check("headers['tier']", 1, 8, &not("a text"));
    check("model + 'a'", 1, 7, &not("a text"));
    check("size(model)", 1, 5, &not("a number"));
    check("['a'].map(x, x)", 1, 10, &not("a list"));
    check("stream ? 'a' : 'b'", 1, 8, &not("a text"));
    check("now", 1, 1, &not("a time"));
    check("int", 1, 1, &not("something else"));
    check("stream && model", 1, 11, "'&&' wants true or false, and this is a text");
    check("!budget_used", 1, 2, "'!' wants true or false, and this is a number");
    check("model ? true : false", 1, 1, "'?' wants true or false before it, and this is a text");
    // Too much.
    check("['a'].exists(x, ['b'].exists(y, x == y))", 1, 29, "a loop (all, exists, exists_one, filter, map) may not");
    check("['a'].map(x, x + x).map(x, x + x) == []", 1, 10, "a loop (all, exists, exists_one, filter, map) may not");
    let nested = |n: usize| format!("{}true{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(self::check(&nested(DEPTH_MAX)), Ok(()));
    check(&nested(DEPTH_MAX + 1), 1, 49, "it nests deeper than 48 levels");
    check(&format!("{}1 > 0", "1 + ".repeat(47)), 1, 1, "it nests deeper than 48 levels");
    assert_eq!(self::check(&format!("{}1 > 0", "1 + ".repeat(46))), Ok(()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(self::check(&" ".repeat(SOURCE_BYTES_MAX + 1)), Err(ExpressionError::TooLong));
}

#[test]
fn the_longest_sources_end_no_process() {
    let fill = |head: &str, part: &str, tail: &str| {
        let room = SOURCE_BYTES_MAX - head.len() - tail.len();
        format!("{head}{}{tail}", part.repeat(room / part.len()))
    };
    for source in [
        fill("1", "+1", " > 0"),
        fill("model", ".b", ""),
        fill("body", "[0]", ""),
        fill("", "(", ""),
        fill("", "[", ""),
        fill("", "{1:", ""),
        fill("", "-", "1"),
        fill("", "'a", ""),
        fill("", "a ? b : ", "c"),
        fill("", "f(", ""),
        fill("", "a.map(x,", ""),
        fill("a", "<a", ""),
        fill("[1]", ".map(x,x+x)", ""),
        fill("true", "?true:true", ""),
    ] {
        assert!(check(&source).is_err(), "{}", &source[..40]);
    }
    // In a row these are no deeper than one of them.
    assert_eq!(check(&fill("true", "||true", "")), Ok(()));
    assert_eq!(check(&fill("", "!", "true")), Ok(()));
}

/// What passes is read and evaluated elsewhere, without a stack of its own.
#[test]
fn what_is_accepted_fits_an_ordinary_stack() {
    let repeat = |head: &str, part: &str, count: usize, tail: &str| format!("{head}{}{tail}", part.repeat(count));
    for source in [
        repeat("", "(", DEPTH_MAX, &format!("true{}", ")".repeat(DEPTH_MAX))),
        repeat("[", "[", DEPTH_MAX - 3, &format!("{}] == []", "]".repeat(DEPTH_MAX - 3))),
        repeat("", "1 + ", DEPTH_MAX - 2, "1 > 0"),
        repeat("body", ".b", DEPTH_MAX - 1, ""),
        repeat("body", "[0]", DEPTH_MAX - 1, ""),
        repeat("", "true ? true : ", DEPTH_MAX - 1, "true"),
        repeat("", "!", SOURCE_BYTES_MAX - 4, "true"),
        repeat("true", "||true", 682, ""),
    ] {
        assert_eq!(check(&source), Ok(()), "{source}");
        let program = Program::compile(&source).unwrap();
        let _ = program.execute(&cel_interpreter::Context::default());
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(source in "[a-z0-9 ()\\[\\].,'\"!&|=<>+?:{}-]{0,200}") {
        let _ = check(&source);
    }

    #[test]
    fn any_words_are_read_or_refused(words in prop::collection::vec(prop::sample::select(vec![
        "model", "headers", "stream", "has", "exists", "map", "x", "1", "2.5", "'a'", "\"b\"", "r'c'", "b'd'", "true",
        "null", "in", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "&&", "||", "!", "-", "+", "*", "/", "%", "==",
        "<", ">=", "\n", "//", "\\", "`", "ü", "@", "1u", "0x", "'''",
    ]), 0..30)) {
        let _ = check(&words.join(" "));
        let _ = check(&words.concat());
    }
}
