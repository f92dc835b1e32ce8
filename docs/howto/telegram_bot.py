"""A Telegram bot that answers voice messages, audio and video with their text; docs/howto/telegram.md."""

import os
import time

import requests

TELEGRAM = os.environ.get("TELEGRAM_API", "https://api.telegram.org")
TOKEN, CHATS = os.environ["TELEGRAM_TOKEN"], os.environ["CHATS"].split(",")
URL, KEY = os.environ.get("URL", "http://localhost:8801"), os.environ["KEY"]
KINDS = ("voice", "audio", "video_note", "video", "document")


def telegram(method, **fields):
    return requests.post(f"{TELEGRAM}/bot{TOKEN}/{method}", json=fields, timeout=70).json()


def text_of(recording):
    """The text of a recording, or the sentence that says why there is none."""
    found = telegram("getFile", file_id=recording["file_id"])
    if not found["ok"]:
        return f"Telegram gives bots files of up to 20 MB. Of this one it says: {found['description']}."
    path = found["result"]["file_path"]
    sound = requests.get(f"{TELEGRAM}/file/bot{TOKEN}/{path}", timeout=300).content
    file = {"file": (recording.get("file_name", path.split("/")[-1]), sound)}
    headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": recording["file_unique_id"]}
    answer = requests.post(f"{URL}/v1/audio/transcriptions", headers=headers, files=file, timeout=900)
    told = answer.json()
    return told["text"].strip() or "Nobody speaks in it." if answer.ok else told["error"]["message"]


def reply(message):
    recording = next((message[kind] for kind in KINDS if kind in message), None)
    chat = message["chat"]["id"]
    if str(chat) not in CHATS:
        text = f"I do not know this chat. Its number for CHATS is {chat}."
    else:
        text = text_of(recording) if recording else "Send me something to hear."
    for start in range(0, len(text), 4096):  # Telegram's longest message
        telegram("sendMessage", chat_id=chat, text=text[start : start + 4096])


seen = 0
while True:
    try:
        news = telegram("getUpdates", offset=seen + 1, timeout=50, allowed_updates=["message"])
        for update in news["result"] if news["ok"] else ():
            if "message" in update:
                reply(update["message"])
            seen = update["update_id"]  # told to Telegram with the next question: a bot that is killed loses nothing
        problem = "" if news["ok"] else f"Telegram: {news['description']}"
    except requests.RequestException as error:
        problem = type(error).__name__  # its text would show the token
    if problem:
        print(f"{problem}; trying again", flush=True)
        time.sleep(5)
