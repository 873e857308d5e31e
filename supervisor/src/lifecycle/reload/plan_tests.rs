use proptest::prelude::*;

use super::*;

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

fn names(list: &[&str]) -> BTreeSet<ModelName> {
    list.iter().map(|text| name(text)).collect()
}

fn config(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), &[]).unwrap()
}

fn survey(list: &[&str]) -> Survey {
    let found = |text: &&str| (name(text), Found::At(PathBuf::from("/models").join(text)));
    Survey { models: list.iter().map(found).collect(), ..Survey::default() }
}

fn plan(old: &str, new: &str, known: &[&str], survey: &Survey) -> Plan {
    let (old, known) = (config(old), names(known));
    let before = Before { config: &old, known: &known };
    Plan::new(&Scope::Everything, before, &config(new), survey)
}

fn wishes(plan: &Plan) -> Vec<(&str, Wish)> {
    plan.wishes.iter().map(|(name, &wish)| (name.as_str(), wish)).collect()
}

#[test]
fn what_is_new_is_loaded_or_listed_and_what_is_gone_is_forgotten() {
    let there = survey(&["b", "c"]);
    let all = plan("", "", &["a", "b"], &there);
    assert_eq!(wishes(&all), [("a", Wish::Forget), ("b", Wish::Serve), ("c", Wish::Load)]);
    let none = "repository.startup = \"none\"";
    let listed = plan(none, none, &["b"], &there);
    assert_eq!(wishes(&listed), [("b", Wish::Stay), ("c", Wish::Stay)]);
}

#[test]
fn a_repository_that_cannot_be_read_unloads_nothing() {
    let blind = Survey { sighted: Sighted::InPart, ..survey(&["b"]) };
    assert_eq!(wishes(&plan("", "", &["a"], &blind)), [("a", Wish::Serve), ("b", Wish::Load)]);
}

#[test]
fn models_are_enabled_and_disabled() {
    let (off, there) = ("[models.a]\nenabled = false", survey(&["a"]));
    assert_eq!(wishes(&plan("", off, &["a"], &there)), [("a", Wish::Disable)]);
    assert_eq!(wishes(&plan(off, "", &["a"], &there)), [("a", Wish::Load)]);
    assert_eq!(wishes(&plan("", off, &[], &there)), [("a", Wish::Disable)]);
    let none = "repository.startup = \"none\"";
    let off = format!("{none}\n{off}");
    assert_eq!(wishes(&plan(&off, none, &["a"], &there)), [("a", Wish::Stay)]);
}

#[test]
fn what_the_start_names_anew_is_loaded_and_what_it_names_no_more_stays() {
    let (none, some) = ("repository.startup = \"none\"", "repository.startup = [\"a\"]");
    let there = survey(&["a", "b"]);
    let named = plan(none, some, &["a", "b"], &there);
    assert_eq!(wishes(&named), [("a", Wish::Load), ("b", Wish::Stay)]);
    let unnamed = plan("", some, &["a", "b"], &there);
    assert_eq!(wishes(&unnamed), [("a", Wish::Serve), ("b", Wish::Stay)]);
}

#[test]
fn models_beyond_the_limit_are_named() {
    let two = "limits.max_models = 2";
    let made = plan(two, two, &["a", "gone"], &survey(&["a", "b", "c"]));
    let expected = [("a", Wish::Serve), ("b", Wish::Load), ("gone", Wish::Forget)];
    assert_eq!(wishes(&made), expected);
    assert_eq!(made.left_out, names(&["c"]));
}

#[test]
fn one_model_concerns_no_other() {
    let (old, known) = (config(""), names(&["a", "b"]));
    let before = Before { config: &old, known: &known };
    let one =
        |new: &str| Plan::new(&Scope::Model(name("a")), before, &config(new), &Survey::default());
    assert_eq!(wishes(&one("")), [("a", Wish::Renew)]);
    assert_eq!(wishes(&one("[models.a]\nenabled = false")), [("a", Wish::Disable)]);
    let new = Plan::new(&Scope::Model(name("c")), before, &config(""), &Survey::default());
    assert_eq!(wishes(&new), [("c", Wish::Load)]);
}

#[test]
fn a_model_that_the_reload_brought_is_required_once_it_serves() {
    let (old, known) = (config(""), names(&["gone", "off", "old", "slow"]));
    let before = Before { config: &old, known: &known };
    let counted = names(&["gone", "off", "old"]);
    let required = |new: &str| {
        let old = Required { counted: counted.clone(), awaited: names(&["slow"]) };
        let new = config(new);
        let plan =
            Plan::new(&Scope::Everything, before, &new, &survey(&["new", "off", "old", "slow"]));
        plan.required(&new, before, &old)
    };
    let startup = required("[models.off]\nenabled = false");
    assert_eq!(startup.counted, names(&["old"]));
    assert_eq!(startup.awaited, names(&["new", "slow"]));
    let listed = required("repository.required = [\"gone\", \"new\", \"off\"]");
    assert_eq!(listed.counted, names(&["off"]));
    assert_eq!(listed.awaited, names(&["gone", "new"]));
}

/// A configuration of three models, of which any may be disabled or named by the start.
fn any_config() -> impl Strategy<Value = String> {
    let startup = prop_oneof![
        Just("\"all\"".to_owned()),
        Just("\"none\"".to_owned()),
        prop::sample::subsequence(vec!["\"a\"", "\"b\"", "\"c\""], 0..=3)
            .prop_map(|names| format!("[{}]", names.join(", "))),
    ];
    let off = prop::sample::subsequence(vec!["a", "b", "c"], 0..=3);
    (startup, off).prop_map(|(startup, off)| {
        let off: String =
            off.iter().map(|name| format!("[models.{name}]\nenabled = false\n")).collect();
        format!("repository.startup = {startup}\n{off}")
    })
}

fn any_names() -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(vec!["a", "b", "c"], 0..=3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_plan_is_sound(
        old in any_config(),
        new in any_config(),
        known in any_names(),
        found in any_names(),
        all in any::<bool>(),
    ) {
        let sighted = if all { Sighted::All } else { Sighted::InPart };
        let seen = Survey { sighted, ..survey(&found) };
        let made = plan(&old, &new, &known, &seen);
        let new = config(&new);
        let concerned: BTreeSet<ModelName> = names(&known).union(&names(&found)).cloned().collect();
        prop_assert_eq!(made.wishes.keys().cloned().collect::<BTreeSet<_>>(), concerned);
        for (name, &wish) in &made.wishes {
            let there = seen.models.contains_key(name);
            prop_assert_eq!(wish == Wish::Forget, all && !there, "{}", name);
            let enabled = is_enabled(&new, name);
            if wish != Wish::Forget {
                prop_assert_eq!(wish == Wish::Disable, !enabled, "{}", name);
            }
            if wish == Wish::Load {
                prop_assert!(new.repository.startup.includes(name), "{}", name);
            }
        }
        // The same once more wishes nothing but what is so.
        let known: BTreeSet<ModelName> = made.wishes.iter()
            .filter(|&(_, &wish)| wish != Wish::Forget).map(|(name, _)| name.clone()).collect();
        let again = Plan::new(
            &Scope::Everything,
            Before { config: &new, known: &known },
            &new,
            &seen,
        );
        prop_assert!(again.wishes.values().all(|wish| matches!(wish, Wish::Stay | Wish::Serve | Wish::Disable)));
    }
}
