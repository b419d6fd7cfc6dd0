"""A chat in one page, with rooms: it works the same with many workers, and with Redis on many machines.

    python examples/chat.py
    httpy run examples/chat.py:app --workers 2

Open http://127.0.0.1:8000/ in two windows.
"""

from __future__ import annotations

from httpy import App, HTMLResponse, WebSocket

app = App(title="Chat")

PAGE = """<!doctype html>
<title>Chat</title>
<h1>Chat</h1>
<p>Room <b id="room"></b>, <span id="present">?</span> present</p>
<ul id="said"></ul>
<form><input id="text" autofocus autocomplete="off"><button>Say</button></form>
<script>
  const where = location.hash.slice(1) || "lobby"
  const name = prompt("Who are you?") || "somebody"
  const scheme = location.protocol === "https:" ? "wss" : "ws"
  const path = `/rooms/${encodeURIComponent(where)}?name=${encodeURIComponent(name)}`
  const socket = new WebSocket(`${scheme}://${location.host}${path}`)
  room.textContent = where
  socket.onmessage = (event) => {
    const {who, what, count} = JSON.parse(event.data)
    const line = document.createElement("li")
    line.textContent = `${who}: ${what}`
    said.append(line)
    present.textContent = count
  }
  socket.onclose = (event) => said.append(`closed: ${event.code} ${event.reason}`)
  document.forms[0].onsubmit = (event) => {
    event.preventDefault()
    socket.send(text.value)
    text.value = ""
  }
</script>"""


@app.get("/")
async def page() -> HTMLResponse:
    """The page. What is behind `#` in its address is the room."""
    return HTMLResponse(PAGE)


# Who reads too slowly loses messages, and holds nobody up. Only this page may open it.
@app.websocket("/rooms/{room}", origins=["same"], when_full="drop")
async def chat(websocket: WebSocket, room: str, name: str = "somebody") -> None:
    """Somebody who talks, for as long as they are there."""
    await websocket.accept()
    await websocket.join(room)
    await say(room, "*", f"{name} came")
    try:
        async for text in websocket:
            await say(room, name, str(text))
    finally:
        await say(room, "*", f"{name} left")


async def say(room: str, who: str, what: str) -> None:
    """Tells everybody in a room, in whichever worker they are."""
    await app.broadcast(room, {"who": who, "what": what, "count": app.presence(room)})


if __name__ == "__main__":
    app.run()
