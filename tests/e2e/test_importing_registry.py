"""`stepstream import mlflow` of a registry: numbers, aliases, stages, also of what was here, cut off or has gone on."""

from tests.e2e.importing_scene import Scene


def test_versions_of_a_name_that_is_here_stay_and_aliases_never_point_at_them(scene: Scene) -> None:
    script = """
post("registered-models/create", name="joined", description="ours")
post("model-versions/create", name="joined", source="s3://ours/v1")
client.create_registered_model("joined", description="theirs")
for number in (1, 2):
    client.create_model_version("joined", f"s3://theirs/v{number}")
client.set_registered_model_alias("joined", "champion", "1")
client.set_registered_model_alias("joined", "next", "2")
imported()
imported()
tell()
"""
    (runs,) = scene.play(script)
    for code, _, problems in runs:
        assert code == 1
        assert "version 1 of 'joined' was left out: this number is another's here" in problems
        assert "alias champion of 'joined' was left out" in problems
    assert {number: one["source"] for number, one in scene.versions("joined").items()} == {
        "1": "s3://ours/v1",
        "2": "s3://theirs/v2",
    }
    assert scene.aliases("joined") == {"next": "2"}
    assert scene.model("joined")["description"] == "ours"


def test_a_version_that_cannot_be_taken_costs_no_number_of_the_next(scene: Scene) -> None:
    script = """
client.create_registered_model("gaps")
client.create_model_version("gaps", "s3://theirs/v1")
client.create_model_version("gaps", f"{folder}/local/2")
for _ in range(3):
    imported()
client.create_model_version("gaps", "s3://theirs/v3")
client.set_registered_model_alias("gaps", "best", "3")
imported()
imported()
tell()
"""
    (runs,) = scene.play(script)
    for code, _, problems in runs:
        assert code == 1
        assert "version 2 of 'gaps'" in problems
        assert "version 1 of" not in problems
    versions = scene.versions("gaps")
    assert {number: one["source"] for number, one in versions.items()} == {"1": "s3://theirs/v1", "3": "s3://theirs/v3"}
    assert scene.aliases("gaps") == {"best": "3"}


def test_a_number_that_is_used_up_here_is_said_and_none_is_used_up_by_saying_so(scene: Scene) -> None:
    script = """
post("registered-models/create", name="used")
for number in (1, 2):
    post("model-versions/create", name="used", source="s3://ours/v")
from stepstream.query import Server
from stepstream.settings import load
ours = Server(load({}, tracking_uri=server))
for number in "12":
    body = json.dumps({"name": "used", "version": number}).encode()
    ours.send("DELETE", "/api/2.0/mlflow/model-versions/delete", body, "application/json")
client.create_registered_model("used")
client.create_model_version("used", "s3://theirs/v1")
for _ in range(3):
    imported()
tell(post("model-versions/create", name="used", source="s3://ours/v")["model_version"]["version"])
"""
    runs, following = scene.play(script)
    for code, _, problems in runs:
        assert code == 1
        assert "version 1 of 'used' is not here, where its number is used up" in problems
    assert following == "4", "the first import has tried, and the others know"


def test_an_import_that_was_killed_within_the_registry_goes_on(scene: Scene) -> None:
    script = """
client.create_registered_model("cut")
for number in (1, 2):
    client.create_model_version("cut", f"s3://theirs/v{number}")
client.delete_model_version("cut", "1")
client.transition_model_version_stage("cut", "2", "Production")
from stepstream.query import Server
ask = Server._ask
def dies_at(end):
    def die(self, method, path, *more):
        if path.endswith(end):
            raise KeyboardInterrupt
        return ask(self, method, path, *more)
    Server._ask = die
    imported()
    Server._ask = ask
dies_at("model-versions/delete")
dies_at("transition-stage")
imported()
imported()
tell()
"""
    (runs,) = scene.play(script)
    assert [code for code, *_ in runs] == [130, 130, 0, 0]
    ((number, version),) = scene.versions("cut").items()
    assert (number, version["source"], version["current_stage"]) == ("2", "s3://theirs/v2", "Production")


def test_what_changes_in_the_source_arrives_and_what_was_changed_here_stays_until_then(scene: Scene) -> None:
    script = """
client.create_registered_model("later")
for number in (1, 2):
    client.create_model_version("later", f"s3://theirs/v{number}")
imported()
client.transition_model_version_stage("later", "1", "Staging")
client.update_registered_model("later", description="new")
client.update_model_version("later", "1", description="first")
client.set_model_version_tag("later", "1", "a", "b")
client.set_registered_model_tag("later", "c", "d")
post("model-versions/transition-stage", name="later", version="2", stage="Production")
imported()
tell()
"""
    (runs,) = scene.play(script)
    assert [code for code, *_ in runs] == [0, 0]
    first, second = (scene.versions("later")[number] for number in "12")
    assert (first["current_stage"], first["description"]) == ("Staging", "first")
    assert {"key": "a", "value": "b"} in first["tags"]
    assert second["current_stage"] == "Production"
    model = scene.model("later")
    assert model["description"] == "new"
    assert {"key": "c", "value": "d"} in model["tags"]


def test_versions_whose_files_are_not_copied_keep_their_place(scene: Scene) -> None:
    script = """
run = client.create_run(client.create_experiment("far", artifact_location="s3://bucket/far")).info.run_id
client.create_registered_model("far")
client.create_model_version("far", f"s3://bucket/far/{run}/artifacts/model", run)
client.create_model_version("far", f"file:///bucket/{run}/artifacts/model", run)
imported("--artifacts", "reference")
tell(run)
"""
    ((code, _, problems),), run_id = scene.play(script)
    assert (code, problems) == (0, "")
    assert {number: one["source"] for number, one in scene.versions("far").items()} == {
        "1": f"s3://bucket/far/{run_id}/artifacts/model",
        "2": f"runs:/{run_id}/model",
    }


def test_what_another_stepstream_notes_of_its_own_numbers_is_not_true_here(scene: Scene) -> None:
    script = """
noted = {"stepstream.imported.used": "5", "stepstream.imported": "made x"}
client.create_registered_model("chained", tags=noted | {"own": "1"})
client.create_model_version("chained", "s3://theirs/v1")
imported()
tell()
"""
    (((code, _, problems),),) = scene.play(script)
    assert (code, problems) == (0, "")
    assert list(scene.versions("chained")) == ["1"]
    tags = {one["key"]: one["value"] for one in scene.model("chained")["tags"]}
    assert (tags.get("stepstream.imported.used"), tags["own"]) == (None, "1")


def test_an_alias_that_is_refused_here_is_said_and_ends_nothing(scene: Scene) -> None:
    script = """
client.create_registered_model("named")
client.create_model_version("named", "s3://theirs/v1")
for alias in ("odd", "plain"):
    client.set_registered_model_alias("named", alias, "1")
client.create_registered_model("then")
import sqlite3
with sqlite3.connect(folder / "mlflow.db") as database:
    database.execute("UPDATE registered_model_aliases SET alias = 'a b' WHERE alias = 'odd'")
imported()
tell()
"""
    (((code, _, problems),),) = scene.play(script)
    assert code == 1
    assert "alias 'a b' of 'named' was left out" in problems
    assert scene.aliases("named") == {"plain": "1"}
    assert scene.model("then")
