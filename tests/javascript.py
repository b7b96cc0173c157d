"""An explorable's script in a JavaScript engine: its mathematics, and what it writes and paints."""

import json
import math
from pathlib import Path

import quickjs

STUB = Path(__file__).with_name("page_stub.js").read_text(encoding="utf-8")


class Script:
    """The script of an ``Explorable`` class; call it with an expression and the names in it.

    The value comes back by way of JSON; numbers that JSON does not know are kept.
    """

    SPECIAL = "(_, v) => Number.isFinite(v) || typeof v !== 'number' ? v : { $number: String(v) }"
    REVIVE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

    def __init__(self, explorable, before=""):
        self.context = quickjs.Context()
        self.context.eval(before + explorable.source())

    def __call__(self, expression, **names):
        constants = "".join(f"const {name} = {json.dumps(value)};" for name, value in names.items())
        text = self.context.eval(
            f"(() => {{ {constants} return JSON.stringify([{expression}], {self.SPECIAL}); }})()")
        return json.loads(text, object_hook=self._revive)[0]

    def _revive(self, value):
        return self.REVIVE[value["$number"]] if "$number" in value else value


class Page(Script):
    """An explorable as it is built in a page of stubs (page_stub.js), at the widget's parameters.

    ``before``: a statement to be run before it is built.
    """

    def __init__(self, widget, before=""):
        super().__init__(type(widget), STUB)
        self.context.eval(f"const model = pageModel({json.dumps(widget.state())}); {before};"
                          "const end = build({ model, el }, explorable);"
                          "const one = test => el.all().find(test);"
                          "const named = name => one(e => e.attributes.name === name);")

    def do(self, statement, **names):
        """Run a statement, and the frame after it."""
        self(f"(() => {{ {statement}; frames.run(); return null; }})()", **names)

    def set(self, **values):
        """What a kernel does."""
        self.do("for (const [name, value] of Object.entries(values)) model.set(name, value)",
                values=values)

    def painted(self, panel=0):
        """What a panel's canvas shows, as the notes of page_stub.js."""
        return self("el.all().filter(e => e.tagName === 'CANVAS')[panel].pen.log", panel=panel)

    def label(self, panel=0):
        """The picture in words."""
        return self("el.all().filter(e => e.tagName === 'CANVAS')[panel]"
                    ".getAttribute('aria-label')", panel=panel)

    def text(self, name):
        """A number on the page as it is written."""
        return self("one(e => e.attributes['data-value'] === name).textContent", name=name)

    @property
    def status(self):
        """The sentence below, and whether the picture is lit up."""
        return self("[one(e => e.attributes.class === 'status').textContent,"
                    " el.children[0].classList.contains('lit')]")

    @property
    def readouts(self):
        """[label, value, note, colour of the sign] of each number, and the words between them."""
        return self("""one(e => e.attributes.class === "readouts").children.map(item => {
            if (item.tagName === "SPAN") return item.textContent;
            const [label, value, note] = item.children;
            return [label, value, note].map(part => part.textContent)
                .concat(label.children[0].style.color);
        })""")

    def mark(self, name):
        """The mark on a slider's track: (where, its words, lit), where being None if it is hidden."""
        return tuple(self("""(row => {
            const [tick] = row.all().filter(e => e.attributes.class === "limit");
            const [words] = row.all().filter(e => e.attributes.class === "limit-label");
            const where = tick.hidden === false ? tick.style.insetInlineStart : null;
            return [where, words.textContent, row.classList.contains("lit")];
        })(one(e => e.tagName === "LABEL" && e.all().includes(named(name))))""", name=name))
