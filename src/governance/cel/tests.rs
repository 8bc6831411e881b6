use super::*;
use proptest::prelude::*;

fn check(source: &str) -> Result<(), ExpressionError> {
    Checker::default().read(source).map(drop)
}

#[test]
fn one_checker_checks_many() {
    let mut checker = Checker::default();
    for n in 0..100 {
        assert_eq!(checker.read(&format!("budget_used > {n}")).map(drop), Ok(()));
        let wrong = checker.read(&format!("{}nope", " ".repeat(n)));
        let message = "there is no variable 'nope'".to_owned();
        assert_eq!(wrong, Err(ExpressionError::At { line: 1, column: n + 1, message }));
        assert_eq!(checker.read(""), Ok(Condition::always()));
        assert_eq!(checker.read(&"x".repeat(SOURCE_BYTES_MAX + 1)), Err(ExpressionError::TooLong));
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
        let condition = Checker::default().read(&source).unwrap();
        let _ = condition.holds(&Nothing, &mut STEPS_MAX.clone());
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
        for source in [words.join(" "), words.concat()] {
            if let Ok(condition) = Checker::default().read(&source) {
                let mut left = STEPS_MAX;
                let outcome = condition.holds(&Everything::new(), &mut left);
                prop_assert!(outcome != Err(Fault::TooCostly) || left == 0);
            }
        }
    }
}

/// Variables that are all there is.
struct Nothing;

impl Facts for Nothing {
    fn value(&self, _: Variable) -> Result<Value<'_>, Fault> {
        Err(Fault::Failed("nothing is known".into()))
    }
}

/// A request that knows every variable.
struct Everything {
    headers: Vec<(&'static str, String)>,
    body: serde_json::Value,
}

impl Everything {
    fn new() -> Everything {
        let headers = vec![("x-tier", "Premium".to_owned()), ("tier", "gold".to_owned()), ("n", "7".to_owned())];
        let body = serde_json::json!({
            "n": 3, "big": 18_446_744_073_709_551_615_u64, "f": 0.5, "s": "text", "l": [1, "a", [2]], "t": true,
            "none": null, "m": {"user": {"id": "u1"}, "tags": ["a", "b"]},
            "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "hello"}],
        });
        Everything { headers, body }
    }
}

struct Texts<'a>(&'a [(&'static str, String)]);

impl Members for Everything {
    fn get(&self, name: &str) -> Result<Option<Value<'_>>, Fault> {
        Texts(&self.headers).find(name).map_or(Ok(None), |text| Ok(Some(Value::text(text))))
    }

    fn names(&self) -> Result<Vec<std::borrow::Cow<'_, str>>, Fault> {
        Ok(self.headers.iter().map(|(name, _)| (*name).into()).collect())
    }
}

impl<'a> Texts<'a> {
    fn find(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, text)| &**text)
    }
}

impl Facts for Everything {
    fn value(&self, variable: Variable) -> Result<Value<'_>, Fault> {
        Ok(match variable {
            Variable::Model => Value::text("gpt-4o"),
            Variable::Provider => Value::text("openai"),
            Variable::RequestType => Value::text("chat_completion"),
            Variable::Headers | Variable::Params => Value::Members(self),
            Variable::VirtualKeyId => Value::text("k1"),
            Variable::Stream => Value::Bool(false),
            Variable::InputTokens => Value::Int(1_200),
            Variable::BudgetUsed => Value::Double(81.5),
            Variable::Request => Value::Double(80.0),
            Variable::Body => Value::Json(&self.body),
            // A Saturday.
            Variable::Now => Value::Time("2026-11-21T20:30:15.250Z".parse().unwrap()),
            _ => Value::text(""),
        })
    }
}

fn holds(source: &str) -> Result<bool, Fault> {
    let condition = Checker::default().read(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    condition.holds(&Everything::new(), &mut STEPS_MAX.clone())
}

#[test]
fn expressions_come_to_what_they_say() {
    let mut wrong = Vec::new();
    for source in [
        "",
        "model == 'gpt-4o' && provider == \"openai\" && request_type == 'chat_completion'",
        "model != 'x' && !(model == 'x')",
        // Names of headers are told without regard to case, however they are asked for.
        "headers['X-Tier'] == 'Premium' && headers[\"x-tier\"] == 'Premium' && 'X-TIER' in headers",
        "headers.tier == 'gold' && headers.Tier == 'gold' && has(headers.TIER) && !has(headers.nope)",
        "params['Tier'] == 'gold' && params.Tier == 'gold' && 'TIER' in params && !('x' in params)",
        "'headers[\"X-Tier\"]' == 'headers[\"X-Tier\"]'",
        "headers.exists(name, name == 'x-tier') && size(headers) == 3",
        // Numbers of all kinds compare with each other.
        "budget_used > 80 && budget_used > 81.4 && 82 > budget_used && request == 80 && 80 == request && request != 81",
        "1 == 1.0 && 1u == 1 && 1 < 1.5 && 2u > 1.5 && -1 < 0u && 1.0 <= 1 && 9007199254740993 > 9007199254740992.0",
        "9223372036854775807 < 9223372036854775808.0 && int(headers.n) == 7 && input_tokens >= 1000",
        "budget_used * 2 == 163 && budget_used + 1 > 82 && 7 / 2 == 3 && 7 % 4 == 3 && -7 / 2 == -3 && 7.0 / 2 == 3.5",
        "1 != 'a' && null == null && !(1 == null) && [1, 'a'] == [1.0, 'a'] && [1] != [1, 2] && {'a': 1} == {'a': 1.0}",
        "'a' < 'b' && 'b' >= 'a' && false < true && b'a' < b'b'",
        // One side decides alone.
        "headers.nope == 'a' || model == 'gpt-4o'",
        "model == 'gpt-4o' || headers.nope == 'a'",
        "!(headers.nope == 'a' && model == 'x') && !(model == 'x' && 1 / 0 == 1)",
        "stream ? 1 / 0 == 1 : true",
        // Functions.
        "model.startsWith('gpt-') && model.endsWith('4o') && model.contains('t-4') && !model.contains('x')",
        "model.matches('^gpt-4o(-mini)?$') && matches(model, '4') && !model.matches('^o[0-9]')",
        "size(model) == 6 && 'πέντε'.size() == 5 && size([1, 2]) == 2 && size({'a': 1}) == 1 && size(b'abc') == 3",
        "int('3') == 3 && int(3.9) == 3 && double('1.5') == 1.5 && string(12) == '12' && string(1.5) == '1.5'",
        "uint(3) == 3u && bool('true') && string(true) == 'true' && bytes('a') == b'a' && string(b'a') == 'a'",
        "type(1) == int && type(model) == string && type(body.n) == int && type(body.f) == double && type([]) == list",
        "type({}) == map && type(null) == null_type && type(1u) == uint && type(now) == timestamp && type(int) == type",
        "dyn(1) == 1.0 && model in ['a', 'gpt-4o'] && !(model in []) && 'a' in {'a': 1} && 1 in [1.0]",
        // Loops.
        "['a', 'gpt-4o'].exists(x, x == model) && [1, 2].all(x, x > 0) && [1, 2, 2].exists_one(x, x == 1)",
        "[1, 2, 3].filter(x, x > 1) == [2, 3] && [1, 2].map(x, x * 2) == [2, 4] && [1, 2].map(x, x > 1, x) == [2]",
        "{'a': 1, 'b': 2}.all(k, k in ['a', 'b']) && ['model'].exists(model, model == 'model')",
        "[0, 1].exists(x, 1 / x == 1) && ![0, 1].all(x, 1 / x == 2)",
        // The body.
        "body.n == 3 && body['f'] < 1 && body.s == 'text' && body.t && body.none == null && body.big > 1",
        "body.m.user.id == 'u1' && body.m.tags[1] == 'b' && 'a' in body.m.tags && has(body.m.user) && !has(body.m.x)",
        "body.l == [1, 'a', [2]] && body.m.user == {'id': 'u1'} && body.l + [3] == [1, 'a', [2], 3]",
        "body.messages.exists(m, m.role == 'user' && m.content.contains('hell')) && size(body.messages) == 2",
        "body.messages.filter(m, m.role == 'user').size() == 1",
        // Time.
        "now.getHours() == 20 && now.getMinutes() == 30 && now.getSeconds() == 15 && now.getMilliseconds() == 250",
        "now.getFullYear() == 2026 && now.getMonth() == 10 && now.getDate() == 21 && now.getDayOfMonth() == 20",
        "now.getDayOfWeek() == 6 && now.getDayOfYear() == 324 && now.getHours('Europe/Berlin') == 21",
        "now.getHours('+02:00') == 22 && now.getDate('+05:30') == 22 && now.getHours('-01:30') == 19",
        "now - duration('1h30m') < now && now > timestamp('2026-01-01T00:00:00Z') && now - now == duration('0s')",
        "duration('1.5h') == duration('90m') && duration('-1s') < duration('1ms') && duration('90m').getHours() == 1",
        "timestamp(0) == timestamp('1970-01-01T01:00:00+01:00') && int(timestamp(5)) == 5",
        "string(timestamp('2026-01-01T00:00:00Z')) == '2026-01-01T00:00:00Z'",
    ] {
        match holds(source) {
            Ok(true) => {}
            other => wrong.push(format!("{source}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_there_is_told_from_what_is_wrong() {
    let missing = |source: &str, what: &str| {
        assert_eq!(holds(source), Err(Fault::Missing(what.into())), "{source}");
    };
    missing("headers.nope == 'a'", "nope");
    missing("headers['nope'] != 'a'", "nope");
    missing("!(params.nope == 'a')", "nope");
    missing("body.m.nope == 1", "nope");
    missing("has(body.nope.x)", "nope");
    missing("{'a': 1}['b'] == 1", "b");
    missing("headers.nope == 'a' || model == 'x'", "nope");
    let failed = |source: &str, what: &str| match holds(source) {
        Err(Fault::Failed(told)) => assert!(told.contains(what), "{source}: {told}"),
        other => panic!("{source}: {other:?}"),
    };
    failed("1 / 0 == 1", "divided by zero");
    failed("1 % 0 == 1 && model == 'gpt-4o'", "divided by zero");
    failed("9223372036854775807 + 1 > 0", "too large");
    failed("-(-9223372036854775807 - 1) > 0", "too large");
    failed("0u - 1u == 1u", "too large");
    failed("body.n", "it came to a int");
    failed("body.s > 1", "a comparison cannot be used on string and int");
    failed("body.s.x == 1", "a string has no members");
    failed("body.n.startsWith('a')", "'startsWith' cannot be used on int and string");
    failed("body.n || stream", "'||' cannot be used on");
    failed("body.l[3] == 1", "beyond its list");
    failed("body.l[-1] == 1", "beyond its list");
    failed("int(model) == 1", "a string is no int");
    failed("int(1e300) == 1", "a double is no int");
    failed("now.getHours('Nowhere/City') == 1", "time zone");
    failed("now + duration('9000000h') + duration('2000000h') > now && duration('x') > duration('1s')", "");
    failed("headers == headers", "as a whole");
    failed("[1, 2].exists_one(x, 1 / (x - 1) == 1)", "divided by zero");
    failed("[0].all(x, 1 / x == 1)", "divided by zero");
    failed("{'a': 1, 'a': 2}['a'] == 1", "a key twice");
    failed("{[1]: 1} == {}", "keys of a map");
}

#[test]
fn patterns_are_compiled_when_a_rule_is_written() {
    let refused = |source: &str, what: &str| {
        let error = Checker::default().read(source).expect_err(source).to_string();
        assert!(error.contains(what), "{error}");
    };
    let literal = "the pattern of 'matches' must be a text written here";
    refused("model.matches(headers.pattern)", &format!("at line 1, column 22 of the expression: {literal}"));
    refused("model.matches('a' + 'b')", literal);
    refused("['a'].exists(p, model.matches(p))", literal);
    refused("model.matches('(')", "unclosed group");
    refused("model.matches('(a)\\\\1')", "backreferences are not supported");
    refused("model.matches('a{1000}{1000}')", "too large once its repetitions are written out");
    refused("model.matches('(?:a{1000}){1000}')", "too large");
    refused(&format!("model.matches('{}')", "a".repeat(513)), "longer than 512 bytes");
    refused(&format!("model.matches('{}a{}')", "(".repeat(40), ")".repeat(40)), "nest");
    refused(&vec!["model.matches('a')"; 17].join(" || "), "more than 16 patterns");
    for good in ["\\\\w+", "(?i)^gpt-4[a-z]?(-mini)?$", "[[:alpha:]]{1,20}", "\\\\p{Greek}+|\\\\d{4}", "(a+)+$"] {
        assert_eq!(check(&format!("model.matches('{good}')")), Ok(()), "{good}");
    }
    // Linear in what is looked through, and never more than a rule may take.
    let facts = |text: &str| Everything { headers: vec![("x", text.to_owned())], body: serde_json::Value::Null };
    let condition = Checker::default().read("headers.x.matches('(a+)+$')").unwrap();
    let held = |text: &str| condition.holds(&facts(text), &mut STEPS_MAX.clone());
    assert_eq!(held(&format!("{}b", "a".repeat(8_000))), Ok(false));
    assert_eq!(held(&"a".repeat(1 << 20)), Err(Fault::TooCostly));
}

#[test]
fn no_evaluation_takes_more_than_its_steps() {
    let elements = |count: usize| vec!["1"; count].join(",");
    let mut facts = Everything::new();
    facts.headers.push(("long", "x".repeat(60_000)));
    facts.body = serde_json::json!({
        "l": (0..2_000).collect::<Vec<i32>>(),
        "deep": (0..100).fold(serde_json::json!(1), |deep, _| serde_json::json!([deep])),
    });
    for source in [
        // A text that doubles, and one that is made longer in a loop.
        "headers.long + headers.long + headers.long + headers.long != ''",
        &format!("[{}].map(x, headers.long + headers.long) != []", elements(500)),
        &format!(
            "[{}].all(x, headers.long.contains('y') || headers.long == headers.long + 'x' || true)",
            elements(500)
        ),
        &format!("[{}].all(x, size(headers.long) > 0)", elements(900)),
        "body.l.all(x, x in body.l)",
        "body.l.map(x, body.l) == body.l",
        "body.l == body.l && body.l.all(x, body.l + body.l != [])",
        "body.deep == body.deep",
        &format!("[{}] == []", elements(700)),
        &vec!["true"; 600].join("||"),
    ] {
        let condition = Checker::default().read(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let mut left = STEPS_MAX;
        let outcome = condition.holds(&facts, &mut left);
        // Whatever it came to, no step was taken that was not there.
        match outcome {
            Err(Fault::TooCostly) => assert_eq!(left, 0, "{source}"),
            _ => assert!(left < STEPS_MAX, "{source}"),
        }
        // With fewer steps than it needs it ends just so.
        for few in [0, 1, 2, 5] {
            let mut left = few;
            let outcome = condition.holds(&facts, &mut left);
            assert!(outcome.is_ok() || left == 0 || few > 2, "{source}: {outcome:?}");
        }
    }
    let costly = |source: &str| {
        let condition = Checker::default().read(source).unwrap();
        assert_eq!(condition.holds(&facts, &mut STEPS_MAX.clone()), Err(Fault::TooCostly), "{source}");
    };
    costly("body.l.all(x, x in body.l)");
    costly(&format!("[{}].map(x, headers.long + headers.long) != []", elements(500)));
    // Nothing absorbs it: a loop that took too much is over.
    costly("body.l.all(x, body.l + body.l == [] || true)");
}

/// Expressions that mean something, of values that both engines know.
fn any_expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "0",
            "1",
            "2",
            "-1",
            "7",
            "0u",
            "3u",
            "1.5",
            "2.0",
            "-0.5",
            "true",
            "false",
            "null",
            "''",
            "'a'",
            "'ab'",
            "'b'",
            "b'a'",
            "b''",
            "[]",
            "[1]",
            "[1, 2]",
            "['a', 'b']",
            "{}",
            "{'a': 1}",
            "{'b': 'x', 'a': 2}",
            "i",
            "t",
            "m",
            "l",
            "m.a",
            "m['b']",
            "m.nope",
            "has(m.a)",
            "has(m.nope)",
            "l[0]",
            "l[5]",
            "int",
            "string",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let binary =
            prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in"]);
        let method = prop::sample::select(vec!["contains", "startsWith", "endsWith"]);
        let function = prop::sample::select(vec!["size", "int", "string", "double", "type", "bool", "uint", "dyn"]);
        let fold = prop::sample::select(vec!["all", "exists", "exists_one", "filter", "map"]);
        prop_oneof![
            4 => (inner.clone(), binary, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            1 => inner.clone().prop_map(|a| format!("!({a})")),
            1 => inner.clone().prop_map(|a| format!("-({a})")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            1 => (inner.clone(), method, inner.clone()).prop_map(|(a, f, b)| format!("({a}).{f}({b})")),
            1 => (function, inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
            1 => (inner.clone(), fold, inner.clone()).prop_map(|(a, f, b)| {
                format!("({a}).{f}(x, {})", b.replace("l[0]", "x"))
            }),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            1 => (inner.clone(), inner).prop_map(|(a, b)| format!("[{a}, {b}]")),
        ]
    })
}

/// `i`, `t`, `m` and `l` stand for literals, so that both engines have the same values without variables.
fn with_literals(expression: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    let signs: Vec<char> = expression.chars().collect();
    for (at, sign) in signs.iter().enumerate() {
        quoted ^= *sign == '\'';
        let word = |at: usize| signs.get(at).is_some_and(|sign| sign.is_alphanumeric() || *sign == '_');
        let alone = !quoted && !word(at + 1) && !(at > 0 && (word(at - 1) || signs[at - 1] == '.'));
        match sign {
            'i' if alone => out.push('3'),
            't' if alone => out.push_str("'text'"),
            'm' if alone => out.push_str("{'a': 1, 'b': 'x'}"),
            'l' if alone => out.push_str("[1, 'a', 2.5]"),
            _ => out.push(*sign),
        }
    }
    out
}

/// Where this engine knows better on purpose: arithmetic on ints and doubles is what people mean by it.
fn mixes_numbers(source: &str, told: &str) -> bool {
    [" + ", " - ", " * ", " / "].iter().any(|sign| source.contains(sign))
        && (told.contains("overload") || told.contains("Unsupported binary operator"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    /// What passes the check evaluates without a panic and within its steps, and where the parser's own engine
    /// comes to true or false, to the same.
    #[test]
    fn both_engines_come_to_the_same(expression in any_expression()) {
        let source = format!("({}) == true", with_literals(&expression));
        if let Ok(condition) = Checker::default().read(&source) {
            let mut left = STEPS_MAX;
            let ours = condition.holds(&Nothing, &mut left);
            let program = cel_interpreter::Program::compile(&source).unwrap();
            let theirs = program.execute(&cel_interpreter::Context::default());
            match (&ours, &theirs) {
                (Ok(ours), Ok(cel_interpreter::Value::Bool(theirs))) => prop_assert_eq!(ours, theirs, "{}", source),
                (Err(Fault::TooCostly), _) => prop_assert_eq!(left, 0),
                (Err(_), Err(_)) => {}
                // It adds a map to a list, which the language does not.
                (Err(Fault::Failed(told)), Ok(_)) if told.contains("on list and map") => {}
                (Ok(_), Err(error)) => prop_assert!(mixes_numbers(&source, &error.to_string()), "{source}: {ours:?}, {error}"),
                (ours, theirs) => prop_assert!(false, "{source}: {ours:?}, {theirs:?}"),
            }
        }
    }
}
