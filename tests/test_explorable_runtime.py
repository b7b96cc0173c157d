"""What all explorables share: sliders, handles, buttons, redraws. On a page of stubs, so that every
event, frame and tick is the test's own and nothing depends on how fast the machine is.
"""

import math

import pytest
from drawing import SIZE, Axes
from javascript import Page

from lnn_core import widgets

CLASSES = [getattr(widgets, name) for name in widgets.__all__ if name != "Explorable"]
CLOSED_FORM = [cls for cls in CLASSES if cls is not widgets.RealNetwork]
each_class = pytest.mark.parametrize("cls", CLOSED_FORM, ids=lambda cls: cls.__name__)
WINDOW = Axes((-0.25, 2.75), (-2.25, 3.25))  # of the landscape
CORNER = (100, 50)  # of every canvas on the page

#: Count what a redraw does.
COUNT = """const count = { solve: 0, draw: 0, describe: 0 };
    const counted = (kind, f) => (...values) => { count[kind]++; return f(...values); };
    explorable.solve = counted("solve", explorable.solve);
    explorable.panels.forEach(panel => {
        for (const kind of ["draw", "describe"]) panel[kind] = counted(kind, panel[kind]);
    })"""


def at(x, y, window=WINDOW):
    """A place on the landscape's picture, as pointer events say it."""
    px, py = window.pixels([(x, y)])[0].tolist()
    return {"clientX": CORNER[0] + px, "clientY": CORNER[1] + py}


def canvas(event, **values):
    return (f"one(e => e.tagName === 'CANVAS').act('{event}', "
            f"{{ pointerType: 'mouse', pointerId: 1, ...{values} }})")


def act(page, event, x, y, dx=0, dy=0, **values):
    """A pointer event at a point of the picture, some pixels beside it; whether it was prevented."""
    place = at(x, y)
    place = {"clientX": place["clientX"] + dx, "clientY": place["clientY"] + dy}
    event_values = {"touches": [place]} if event == "touchstart" else place
    prevented = page(canvas(event, **event_values, **values))
    page.do("")
    return prevented


def state(page, *names):
    return [page("model.get(name)", name=name) for name in names]


# Redraws


@each_class
def test_a_redraw_computes_and_draws_once(cls):
    """If it fails, a slider lags behind the finger: each change is computed again and again."""
    page = Page(cls(), COUNT)
    assert page("count") == {kind: page("explorable.panels.length") if kind != "solve" else 2
                             for kind in ("solve", "draw", "describe")}  # first to build
    page("Object.keys(count).forEach(kind => { count[kind] = 0; })")
    names = [c["name"] for c in cls.controls() if "options" not in c]
    for name in names:  # a burst of changes
        page("[0, 3, 7].forEach(i => { const s = named(name); s.value = i; s.act('input'); })",
             name=name)
    assert page("[frames.jobs.size, count.draw]") == [1, 0]
    page.do("")
    assert page("[frames.jobs.size, count.solve, count.draw, count.describe]") == [
        0, 1, *[page("explorable.panels.length")] * 2]


@each_class
def test_a_redraw_paints_little(cls):
    """If it fails, a picture has become too heavy for a phone: painting goes by calls and
    corners."""
    page = Page(cls())
    size = """(log => [log.length, log.reduce((sum, { path, pixels }) => sum + (pixels || []).length / 4
        + (path || []).reduce((n, part) => n + (part.points || [0]).length, 0), 0)])"""
    for control in cls.controls():
        for value in control.get("options", (control.get("min"), control.get("max"))):
            page.set(**{control["name"]: value})
            for panel in range(page("explorable.panels.length")):
                calls, corners = page(f"{size}(el.all().filter(e => e.tagName === 'CANVAS')[{panel}]"
                                      ".pen.log)")
                assert calls < 150 and corners < 20_000, (control, value)


def test_pictures_follow_the_page():
    """If it fails, a picture keeps its size, theme or screen colours when the page has changed."""
    page = Page(widgets.OneUnit(), COUNT)
    assert page("watching.map(w => w.query || w.seen.map(([place, what]) => [place.tagName, what]))"
                ) == [[["CANVAS", None], ["CANVAS", None]],
                      [[tag, {"attributeFilter": ["data-theme", "data-jp-theme-name"]}]
                       for tag in ("HTML", "BODY")], "print", "(prefers-color-scheme: dark)"]
    for i in (0, 1):  # size and theme: in the next frame
        before = page("count.draw")
        page(f"watching[{i}].changed()")
        assert page("count.draw") == before
        page.do("")
        assert page("count.draw") == before + 2
    for i in (2, 3):  # print and system colours: at once
        before = page("count.draw")
        page(f"watching[{i}].changed()")
        assert page("count.draw") == before + 2


def test_density_of_the_screen():
    """If it fails, pictures are blurred on phones, or stretched."""
    page = Page(widgets.OneUnit(), "devicePixelRatio = 2.5")
    assert page("one(e => e.tagName === 'CANVAS').width") == round(2.5 * SIZE[0])
    assert page("one(e => e.tagName === 'CANVAS').height") == round(2.5 * SIZE[1])
    clear = page.painted()[0]
    assert clear == {"what": "clear", "box": [0, 0, *SIZE], "scale": 2.5}
    frame = next(note for note in page.painted() if note.get("words") == "activation z")
    assert frame["at"] == pytest.approx([2.5 * (44 + SIZE[0] - 12) / 2, 2.5 * (SIZE[1] - 2)])


def test_an_explorable_ends():
    """If it fails, a cell that has been run again goes on drawing where nobody looks."""
    page = Page(widgets.Landscape(), COUNT)
    page("named('play').act('click')")
    page("(model.set('beta', 0.3), end())")
    assert page("[watching.length, frames.jobs.size, timers.jobs.size]") == [0, 0, 0]
    before = page("count.draw")
    page.set(beta=0.4, x=0.3)
    assert page("count.draw") == before


def test_what_takes_time_to_set_up_is_shown_afterwards():
    """If it fails, a picture is built before its data, or after its cell has gone."""
    page = Page(widgets.Landscape(), """let ready = null, given = null;
        const slow = { ...explorable, setup: (...what) => {
            given = what; return { then(job) { ready = job; } }; } };
        const spot = new Element("div"), leave = mount({ model, el: spot }, slow)""")
    assert page("[given[0] === model, given[1] === spot, spot.children.length]") == [True, True, 0]
    page("ready()")
    assert page("spot.children.length") == 1
    page("leave()")
    gone = Page(widgets.Landscape(), """let ready = null;
        const slow = { ...explorable, setup: () => ({ then(job) { ready = job; } }) };
        const spot = new Element("div"); mount({ model, el: spot }, slow)()""")
    gone("ready()")
    assert gone("spot.children.length") == 0


# Sliders and choices


@each_class
def test_every_control_reaches_the_model(cls):
    """If it fails, a slider moves another parameter, jumps, or is not named."""
    page = Page(cls())
    for control in cls.controls():
        name = control["name"]
        if "options" in control:
            for value in control["options"]:
                page.do(f"named('{name}').value = value; named('{name}').act('change')", value=value)
                assert state(page, name) == [value]
                page.set(**{name: control["start"]})
                assert page(f"named('{name}').value") == control["start"]
            options = page(f"named('{name}').children.map(o => [o.attributes.value, o.textContent])")
            assert options == [list(pair) for pair in zip(control["options"], control["labels"])]
            continue
        low, high, step = control["min"], control["max"], control["step"]
        last = round(math.log(high / low, step) if control["log"] else (high - low) / step)
        assert page(f"named('{name}').attributes") == {
            "type": "range", "name": name, "min": "0", "max": str(last), "step": "1",
            "aria-label": control["label"], "aria-valuetext": page.text(name)}
        for i in (0, 1, last // 3, last):
            page.do(f"named('{name}').value = String(i); named('{name}').act('input')", i=i)
            value = low * step**i if control["log"] else low + i * step
            assert state(page, name) == [pytest.approx(value, rel=1e-12)]
            assert page(f"Number(named('{name}').value)") == i


def test_values_between_the_steps_are_kept_by_kernels_only():
    """If it fails, what a kernel sets is rounded; or what is dragged is shown as another number."""
    page = Page(widgets.Landscape())
    page.set(y=1.2345)
    assert state(page, "y") == [1.2345] and page.text("y") == "1.23"
    act(page, "pointerdown", 2.0, 1.2345)
    act(page, "pointermove", 2.0, 0.73)
    assert state(page, "y") == [0.75]


# Handles


@pytest.mark.parametrize("kind, reach", [("mouse", 14), ("touch", 26)])
def test_how_near_a_pointer_must_be(kind, reach):
    """If it fails, a handle is missed, or taken from far away: fingers are given more room."""
    page = Page(widgets.Landscape())
    for far, taken in ((reach - 0.5, True), (reach + 0.5, False)):
        page.set(x=1.0, y=3.0)
        act(page, "pointerdown", 1.0, 1.0, far * 0.6, far * 0.8, pointerType=kind)
        act(page, "pointermove", 2.0, 0.0)
        assert (state(page, "x", "y") == [2.0, 3.0]) == taken
        act(page, "pointerup", 2.0, 0.0)


def test_the_nearest_handle_is_taken_and_let_go():
    """If it fails, the target moves with the forward pass, or a handle sticks to the pointer."""
    page = Page(widgets.Landscape(x=1.0, y=1.1))
    act(page, "pointerdown", 1.0, 1.07)  # the line at 1.1 is nearer than the square at 1
    act(page, "pointermove", 1.5, 2.0)
    assert state(page, "x", "y") == [1.0, 2.0]
    for end in ("pointerup", "pointercancel"):
        act(page, end, 1.5, 2.0)
        act(page, "pointermove", 1.5, 0.0)
        assert state(page, "y") == [2.0]
        act(page, "pointerdown", 1.5, 2.0)
    act(page, "pointermove", 1.5, 1.0)
    assert state(page, "y") == [1.0]


def test_the_cursor_shows_a_handle():
    """If it fails, a reader with a mouse does not find what can be dragged."""
    page = Page(widgets.Landscape())
    for y, shown in ((2.0, True), (0.0, False)):
        act(page, "pointermove", 2.0, y)
        assert page("one(e => e.tagName === 'CANVAS').classList.contains('grab')") == shown


def test_only_a_finger_on_a_handle_stops_scrolling():
    """If it fails, a page cannot be scrolled past a picture, or scrolls away under a drag."""
    page = Page(widgets.Landscape())
    assert act(page, "touchstart", 2.0, 2.0, dy=25) and not act(page, "touchstart", 2.0, 2.0, dy=27)


def test_a_drag_past_the_end_is_clamped_with_a_message():
    """If it fails, the target is lost outside the picture, or stops without a word."""
    page = Page(widgets.Landscape())
    act(page, "pointerdown", 2.0, 2.0)
    act(page, "pointermove", 2.0, 3.2)
    assert state(page, "y") == [3.0]
    assert page.status[0].startswith("y goes from −1.00 to 3.00: set to 3.00. The attack has")
    act(page, "pointermove", 2.0, 2.0)
    assert page.status[0].startswith("The attack has")


DRAGS = {
    widgets.Landscape: [(0, "x", (1.7,)), (0, "y", (-0.55,))],
    widgets.OneUnit: [(0, "a", (0.45,)), (0, "z", (1.65,)), (1, "az", (1.5, 2.05))],
    widgets.Anisotropy: [(0, "x", (1.7,)), (0, "y", (-0.55,))],
    widgets.Sandwich: [(0, "beta", (0.61,))],
    widgets.Targets: [(0, "y", (0.45, -1.05)), (0, "wrong", (-1.5, 0.25))],
    widgets.Gains: [(0, "beta", (4.0,)), (0, "sigma1", (0.5,)), (0, "sigma2", (4.0,)),
                    (0, "sigma3", (1.0,)), (1, "scale", (2.0,))],
}
MOVES = {"az": ("a", "z"), "wrong": ("wrong1", "wrong2")}  # handles of two parameters


@pytest.mark.parametrize("cls, panel, name, values", [
    (cls, *drag) for cls, drags in DRAGS.items() for drag in drags])
def test_every_handle_takes_its_parameters_along(cls, panel, name, values):
    """If it fails, a handle is not where its parameter is, or moves another one.

    What a handle does to the parameters is undone by setting them: then it is where it was dragged.
    """
    page = Page(cls())
    names = ("y1", "y2") if (cls, name) == (widgets.Targets, "y") else MOVES.get(name, (name,))
    found = page("""(() => {
        const p = parameters(model), q = { ...p };
        names.forEach((name, i) => { q[name] = values[i]; });
        const of = r => explorable.panels[panel].handles(r, explorable.solve(r))
            .filter(handle => handle.name === name);
        return of(q).map(({ at }, i) => of(p)[i].move(...at));
    })()""", panel=panel, name=name, names=names, values=values)
    assert len(found) == (2 if name.startswith("sigma") else 1)
    for moved in found:
        assert moved == {n: pytest.approx(value, rel=1e-9) for n, value in zip(names, values)}


@each_class
def test_there_are_no_other_handles(cls):
    """If it fails, a handle is not looked at by the tests above."""
    names = Page(cls())("""explorable.panels.map(({ handles }) => handles
        ? handles(parameters(model), explorable.solve(parameters(model))).map(({ name }) => name) : [])""")
    found = {(panel, name) for panel, those in enumerate(names) for name in those}
    assert found == {(panel, name) for panel, name, _ in DRAGS[cls]}


# Buttons


def test_one_step_and_back():
    """If it fails, a button does something else than it says."""
    page = Page(widgets.Landscape())
    words = "el.all().filter(e => e.tagName === 'BUTTON').map(e => [e.attributes.type, e.textContent])"
    assert page(words) == [["button", label] for label in ("One sweep", "Sweep on", "Back to z*")]
    for _ in range(25):
        page.do("named('step').act('click')")
    assert state(page, "passes") == [20]
    page.do("named('reset').act('click')")
    assert state(page, "passes") == [0]


def test_sweeps_go_on_until_the_end():
    """If it fails, a picture moves too fast, for ever, or not at all."""
    page = Page(widgets.Landscape())
    page.do("named('play').act('click')")
    assert state(page, "passes") == [1] and page("[...timers.jobs.values()][0].every") == 350
    for passes in range(2, 21):
        page.do("timers.run()")
        assert state(page, "passes") == [passes]
    page.do("timers.run()")
    assert state(page, "passes") == [20] and page("timers.jobs.size") == 0
    page.do("named('play').act('click')")  # nothing left to do
    assert page("timers.jobs.size") == 0


@pytest.mark.parametrize("does, stops", [
    ("named('beta').act('pointerdown')", True), ("named('beta').act('keydown')", True),
    ("named('step').act('click')", True), ("named('play').act('click')", True),
    ("named('reset').act('pointerdown')", False), ("named('play').act('keydown')", False)])
def test_sweeps_play_until_the_reader_acts(does, stops):
    """If it fails, a picture moves by itself and cannot be stopped."""
    page = Page(widgets.Landscape())
    page.do("named('play').act('click'); timers.run()")
    page.do(does)
    before = state(page, "passes")
    page.do("timers.run()")
    assert (state(page, "passes") == before) == stops


def test_no_motion_where_the_reader_wants_none():
    """If it fails, the reader's wish for reduced motion is ignored: the end is shown at once."""
    page = Page(widgets.Landscape(), "prefers['(prefers-reduced-motion: reduce)'] = true")
    page.do("named('play').act('click')")
    assert state(page, "passes") == [20] and page("timers.jobs.size") == 0


# The page around


@each_class
def test_the_page_is_built_in_order(cls):
    """If it fails, a picture is not called one, or stands below its sliders."""
    page = Page(cls())
    assert page("el.children.map(e => e.attributes.class)") == ["lnn-explorable"]
    assert page("el.children[0].children.map(e => e.attributes.class)") == [
        "panels", "readouts", "controls", "status"]
    assert page("one(e => e.attributes.class === 'status').attributes.role") == "status"
    canvases = page("one(e => e.attributes.class === 'panels').children.map(e => "
                    "[e.tagName, e.attributes.role, e.style['--shape']])")
    assert canvases == [["CANVAS", "img", 1.7 if cls is widgets.Landscape else
                         1.15 if cls is widgets.OneUnit else 1.05]] * len(canvases)
    rows = page("one(e => e.attributes.class === 'controls').children.map(e => "
                "e.all().map(i => i.attributes.name).filter(Boolean))")
    names = [name for row in rows[:-1] for name in row]
    assert names == [control["name"] for control in cls.controls()]
    hidden = page("one(e => e.attributes.class === 'readouts').all()"
                  ".filter(e => e.tagName === 'I').map(e => e.attributes['aria-hidden'])")
    assert set(hidden) == {"true"}


def test_a_page_without_a_kernel_tells_changes_only():
    """If it fails, a picture is redrawn for ever, or a listener that was taken off still hears."""
    page = Page(widgets.Landscape(), "let heard = 0; const listen = () => heard++;"
                "model.on('change:beta', listen)")
    page("[0.4, 0.4, 0.5].forEach(value => model.set('beta', value))")
    assert page("[heard, model.get('beta')]") == [2, 0.5]
    page("(model.off('change:beta', listen), model.off('change:y', listen), model.set('beta', 0.6))")
    assert page("heard") == 2
