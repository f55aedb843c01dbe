"""What the configuration of a record may look like, derived from the models of `quantlab.config.schema`."""

import pytest
from pydantic import ValidationError

from quantlab.config.compose import compose
from quantlab.config.schema import RunConfig
from quantlab.records.schema import Record
from quantlab.records.shape import check, shape_of

WRONG = [
    ("quant", "bits", "8", "quant.bits='8': expected a number or null"),
    ("quant", "skip", ["a", 1], "quant.skip=['a', 1]: expected a list of texts"),
    ("quant", "name", None, "quant.name=None: expected a text"),
    ("quant", "format", ["int8"], "quant.format=['int8']: expected a text or null"),
    ("quant", "head", 0, "quant.head=0: expected true or false"),
    ("quant", "later", {"key": 1}, "quant.later={'key': 1}: expected a number or a text or null or true or false"),
    ("dataset", "noise", None, "dataset.noise=None: expected a mapping"),
    ("dataset", "noise", {"snr_db": True}, "dataset.noise.snr_db=True: expected a number or null"),
    ("model", "architecture", {"d_model": "x" * 99}, "model.architecture.d_model='xxx"),
]


@pytest.mark.parametrize("options", [[], ["experiment=engines", "-m"], ["dataset=librispeech", "model=small"]])
def test_what_is_dumped_has_it(options):
    for config in compose(options):
        for mode in ("json", "python"):
            check(config.model_dump(mode=mode), shape_of(RunConfig))


@pytest.mark.parametrize(("section", "key", "value", "said"), WRONG)
def test_what_has_not_is_named(section, key, value, said):
    config = compose([])[0].model_dump(mode="json")
    config[section][key] = value
    with pytest.raises(ValidationError) as caught:
        Record(cell_id="cell", status="ok", created_at="2026-01-01T00:00:00+00:00", config=config)
    assert said in str(caught.value)
    assert "x" * 90 not in caught.value.errors()[0]["msg"]


def test_another_version_has_other_keys():
    config = compose([])[0].model_dump(mode="json")
    del config["quant"]["bits"], config["export"]
    config["quant"]["later"] = config["later"] = "a value"
    check(config, shape_of(RunConfig))
