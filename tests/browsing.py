"""An explorable in a browser, handled as a reader does: mouse, keyboard, finger.

The fixture ``shown(widgets.X(...))`` opens a page that holds nothing but X's HTML, from the file
system and with no kernel, and returns a ``Shown``.
"""

import re

import pytest

DESKTOP, PHONE = 1280, 390

PAGE = """<!doctype html><html data-theme="{theme}">
<meta charset="utf-8"><title>An explorable</title>
<meta name="viewport" content="width=device-width"><style>
html {{ --pst-color-text-base: #222832; --pst-color-background: #fff; }}
html[data-theme=dark] {{ --pst-color-text-base: #ced6dd; --pst-color-background: #14181e; }}
body {{ background: var(--pst-color-background); margin: 1rem auto; max-width: 46rem }}
</style>{html}"""

#: A page without a theme, in colours of its own.
BARE = """<!doctype html><meta charset="utf-8"><title>An explorable</title>{head}
<body style="background: {paper}; color: {ink}; margin: 1rem">{html}"""

TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"

each_way = pytest.mark.parametrize("width, theme", [(DESKTOP, "light"), (PHONE, "dark")])


class Shown:
    """An explorable on an open page; ``root`` narrows it down where the page holds more."""

    def __init__(self, page, root=".lnn-explorable"):
        self.page, self.root = page, page.locator(root).first
        self.errors, self.requests = [], []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda event: event.type == "error" and self.errors.append(event.text))
        page.on("request", lambda request: self.requests.append(request.url))

    def settle(self):
        """Wait until what was changed has been drawn."""
        self.page.evaluate(TWO_FRAMES)

    def control(self, name):
        return self.root.locator(f"[name={name}]")

    def text(self, name):
        """A number on the page as it is written."""
        return self.root.locator(f"[data-value={name}]").inner_text()

    def number(self, name):
        """A number on the page: of a slider, or of a readout."""
        return float(self.text(name).replace("−", "-").replace("∞", "inf").replace("–", "nan"))

    def numbers(self, *names):
        return [self.number(name) for name in names]

    @property
    def status(self):
        return self.root.locator(".status").inner_text()

    @property
    def lit(self):
        return "lit" in self.root.get_attribute("class").split()

    def canvas(self, panel=0):
        return self.root.locator("canvas").nth(panel)

    def label(self, panel=0):
        """The picture in words."""
        return self.canvas(panel).get_attribute("aria-label")

    def picture(self, panel=0):
        """The canvas' pixels, to be compared."""
        return self.canvas(panel).evaluate("canvas => canvas.toDataURL()")

    def press(self, name, *keys):
        """Keys on a control."""
        for key in keys:
            self.control(name).press(key)
        self.settle()

    def slide(self, name, share):
        """Take a slider's thumb with the mouse and pull it to ``share`` of the track."""
        slider = self.control(name)
        slider.scroll_into_view_if_needed()
        at, end = (float(slider.evaluate(f"slider => slider.{key}")) for key in ("value", "max"))
        box = slider.bounding_box()
        y, inner = box["y"] + box["height"] / 2, box["width"] - 16  # a thumb is 16 px wide
        self.page.mouse.move(box["x"] + 8 + inner * at / end, y)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + 8 + inner * share, y, steps=4)
        self.page.mouse.up()
        self.settle()

    def tap(self, name, share):
        """Touch a slider at ``share`` of its track."""
        slider = self.control(name)
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        x, y = box["x"] + 8 + (box["width"] - 16) * share, box["y"] + box["height"] / 2
        self.page.touchscreen.tap(x, y)
        self.settle()

    def click(self, name):
        """A button."""
        self.root.locator(f"button[name={name}]").click()
        self.settle()

    def drag(self, start, end, panel=0):
        """Pull the mouse over a picture, between two places given in pixels of the canvas."""
        self.canvas(panel).scroll_into_view_if_needed()
        box = self.canvas(panel).bounding_box()
        self.page.mouse.move(box["x"] + start[0], box["y"] + start[1])
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + end[0], box["y"] + end[1], steps=4)
        self.page.mouse.up()
        self.settle()

    def swipe(self, start, end, panel=0):
        """The same with a finger."""
        self.canvas(panel).scroll_into_view_if_needed()
        box = self.canvas(panel).bounding_box()
        touch = self.page.context.new_cdp_session(self.page)
        for share in (None, 0.25, 0.5, 0.75, 1):
            x, y = (a + (share or 0) * (b - a) for a, b in zip(start, end))
            touch.send("Input.dispatchTouchEvent", {
                "type": "touchStart" if share is None else "touchMove",
                "touchPoints": [{"x": box["x"] + x, "y": box["y"] + y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        self.settle()

    def place(self, x, y, window, panel=0, margins=(10, 12, 36, 44)):
        """Where the data point (x, y) lies on the canvas, for a window {"x": …, "y": …}."""
        box, (top, right, bottom, left) = self.canvas(panel).bounding_box(), margins
        (x0, x1), (y0, y1) = window["x"], window["y"]
        return (left + (x - x0) / (x1 - x0) * (box["width"] - left - right),
                box["height"] - bottom - (y - y0) / (y1 - y0) * (box["height"] - top - bottom))


def has_nan(shown):
    """Whether any words of an explorable, heard or read, give away a number that is none."""
    labels = (shown.label(i) for i in range(shown.root.locator("canvas").count()))
    words = [shown.root.inner_text(), *labels]
    return [text for text in words if re.search(r"NaN|undefined|null|−0\.0+(?!\d)|Infinity", text)]
