"""An explorable's script in a JavaScript engine without a page: mathematics only."""

import json
import math

import quickjs


class Script:
    """The script of an ``Explorable`` class; call it with an expression and the names in it.

    The value comes back by way of JSON; numbers that JSON does not know are kept.
    """

    SPECIAL = "(_, v) => Number.isFinite(v) || typeof v !== 'number' ? v : { $number: String(v) }"
    REVIVE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

    def __init__(self, explorable):
        self.context = quickjs.Context()
        self.context.eval(explorable.source())

    def __call__(self, expression, **names):
        constants = "".join(f"const {name} = {json.dumps(value)};" for name, value in names.items())
        text = self.context.eval(
            f"(() => {{ {constants} return JSON.stringify({expression}, {self.SPECIAL}); }})()")
        return json.loads(text, object_hook=self._revive)

    def _revive(self, value):
        return self.REVIVE[value["$number"]] if "$number" in value else value
