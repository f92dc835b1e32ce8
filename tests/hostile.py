"""Files made to harm whoever decodes them, each as small as it can be and written here byte by byte.

Three kinds: those that point to somebody else's recording or to an address (FFmpeg would read the one into its owner's
transcript and call the other), those that are far more than they look, and those that lie about themselves.
"""

import base64
import struct
import subprocess
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transcription import errors

FORMATS = Path(__file__).parent / "data" / "formats"
SOUND = (b"\x00\x20" * 20 + b"\x00\xe0" * 20) * 400  # a second of 400 Hz: 16 kHz mono s16le
ENDLESS = 2**32 - 1


@dataclass(frozen=True)
class Victim:
    """What the files are after: a recording of somebody else's, and an address of this machine."""

    secret: Path
    address: str

    @property
    def local(self) -> str:
        return f"file://{self.secret}"

    @property
    def remote(self) -> str:
        return f"http://{self.address}/secret.wav"


Fill = Callable[[Victim], bytes]
Outcome = type[errors.InputProblem] | float  # what is raised, or the seconds of its own sound


# ------------------------------------------------------------------ texts that name another file


def playlist(*entries: str, head: str = "#EXT-X-TARGETDURATION:9") -> str:
    lines = "".join(f"#EXTINF:9,\n{entry}\n" for entry in entries)
    return f"#EXTM3U\n{head}\n{lines}#EXT-X-ENDLIST\n"


MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT9S">'
    '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="9"><BaseURL>{}</BaseURL>'
    '<SegmentList><Initialization sourceURL="{}"/><SegmentURL media="{}"/></SegmentList>'
    "</Representation></AdaptationSet></Period></MPD>"
)
IMF = (
    '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>urn:uuid:1</Id>'
    "<SegmentList><Segment><Id>{}</Id></Segment></SegmentList></CompositionPlaylist>"
)
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"><image xlink:href="{}"/></svg>'
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
SMOOTH = '<SmoothStreamingMedia><StreamIndex Type="audio" Url="{}"/></SmoothStreamingMedia>'
SMIL = '<smil><body><audio src="{}"/></body></smil>'
ASX = '<asx version="3.0"><entry><ref href="{}"/></entry></asx>'
XSPF = (
    '<playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList><track><location>{}</location></track></trackList>'
)
VOBSUB = "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 0\n"
ASS = "[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,0:00:09.00,x,,0,0,0,,{{\\p1}}{}\n"

TEXTS: dict[str, Callable[[Victim], str]] = {
    "hls.wav": lambda v: playlist(v.local),
    "hls.mp3": lambda v: playlist(v.secret.name),
    "hls.txt": lambda v: playlist(v.remote),
    "hls.m3u8": lambda v: playlist(str(v.secret)),
    "hls.mp4": lambda v: playlist(f"../{v.secret.parent.name}/{v.secret.name}"),
    "hls-of-all-protocols.ogg": lambda v: playlist(
        *(f"concat:{v.secret}|{v.secret}", f"subfile,,start,0,end,9,,:{v.secret}", f"cache:{v.local}", "data:,RIFF"),
        *(f"async:{v.local}", f"crypto+{v.local}", f"tcp://{v.address}", f"udp://{v.address}", f"tee:{v.secret}"),
        *(f"unix:{v.secret}", f"gopher://{v.address}", f"rtmp://{v.address}/x", f"ftp://{v.address}/x", "pipe:0"),
    ),
    "hls-of-playlists.m4a": lambda v: f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{v.local}\n",
    "hls-with-a-key.aac": lambda v: playlist(v.local, head=f'#EXT-X-KEY:METHOD=AES-128,URI="{v.local}"'),
    "hls-with-a-map.m4a": lambda v: playlist(v.local, head=f'#EXT-X-MAP:URI="{v.remote}"'),
    "hls-with-a-rendition.mp4": lambda v: (
        f'#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="{v.local}"\n'
        f'#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"\n{v.remote}\n'
    ),
    "list.m3u": lambda v: f"{v.secret}\n{v.remote}\n",
    "list.pls": lambda v: f"[playlist]\nFile1={v.local}\nNumberOfEntries=1\n",
    "list.asx": lambda v: ASX.format(v.remote),
    "list.xspf": lambda v: XSPF.format(v.local),
    "list.ram": lambda v: f"{v.remote}\nrtsp://{v.address}/x.rm\n",
    "redirector.asf": lambda v: f"[Reference]\nRef1={v.remote}\nRef2={v.local}\n",
    "concat.mp3": lambda v: f"ffconcat version 1.0\nfile '{v.secret.name}'\n",
    "concat.wav": lambda v: f"ffconcat version 1.0\nfile '{v.local}'\nduration 9\nfile '{v.remote}'\n",
    "concat-with-options.ogg": lambda v: f"ffconcat version 1.0\nfile '{v.local}'\noption safe 0\n",
    "dash.mpd": lambda v: MPD.format(v.local, v.local, v.local),
    "dash.mp3": lambda v: MPD.format(v.remote, v.remote, v.remote),
    "smooth.ismv": lambda v: SMOOTH.format(v.remote),
    "composition.mxf": lambda v: IMF.format(v.local),
    "session.sdp": lambda v: SDP,
    "session.wav": lambda v: SDP,
    "slides.smil": lambda v: SMIL.format(v.remote),
    "picture.svg": lambda v: SVG.format(v.local),
    "script.avs": lambda v: f'DirectShowSource("{v.secret}")\n',
    "script.vpy": lambda v: f"import vapoursynth as vs\nopen('{v.secret}').read()\n",
    "graph.lavfi": lambda v: f"amovie={v.secret}\n",
    "metadata.txt": lambda v: f";FFMETADATA1\ntitle={v.local}\n",
    "tracks.cue": lambda v: f'FILE "{v.secret}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "subtitles.idx": lambda v: VOBSUB,
    "subtitles.ass": lambda v: ASS.format(v.local),
    "subtitles.srt": lambda v: f"1\n00:00:00,000 --> 00:00:09,000\n<img src='{v.remote}'>\n",
    "subtitles.vtt": lambda v: (
        f"WEBVTT\n\nSTYLE\n::cue {{ background: url({v.remote}) }}\n\n00:00.000 --> 00:09.000\nx\n"
    ),
    "subtitles.smi": lambda v: f"<SAMI><BODY><SYNC Start=0><P><img src='{v.remote}'></SYNC></BODY></SAMI>",
    "page.html": lambda v: f"<!doctype html><audio src='{v.remote}'></audio>",
}


# ------------------------------------------------------------------ RIFF


def chunk(kind: bytes, *parts: bytes) -> bytes:
    inside = b"".join(parts)
    return kind + struct.pack("<I", len(inside)) + inside + b"\0" * (len(inside) % 2)


def wave(samples: bytes = SOUND, *, rate: int = 16000, bits: int = 16, channels: int = 1, codec: int = 1) -> bytes:
    frame = bits // 8 * channels
    layout = struct.pack("<HHIIHH", codec, channels, rate, min(rate * frame, ENDLESS), frame % 65536, bits)
    return chunk(b"RIFF", b"WAVE", chunk(b"fmt ", layout), chunk(b"data", samples))


def claiming(file: bytes, kind: bytes, size: int = ENDLESS) -> bytes:
    """The same file, of which one chunk says that it is larger."""
    place = file.index(kind) + 4
    return file[:place] + struct.pack("<I", size) + file[place + 4 :]


def avi(*packets: tuple[bytes, bytes], index: Sequence[tuple[bytes, int, int]] = ()) -> bytes:
    """Sound, and a second track of text; packets and index entries begin with `00wb` or `01tx`."""
    sound = struct.pack("<4s4sIHHIIIIIIII8x", b"auds", bytes(4), 0, 0, 0, 0, 1, 16000, 0, 16000, 0, 0, 2)
    text = struct.pack("<4s4sIHHIIIIIIII8x", b"txts", bytes(4), 0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0)
    layout = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
    main = struct.pack("<IIIIIIIIII16x", 40000, 32000, 0, 0x10 if index else 0, 1, 0, 2, 0, 0, 0)
    return chunk(
        b"RIFF",
        b"AVI ",
        chunk(
            b"LIST",
            b"hdrl",
            chunk(b"avih", main),
            chunk(b"LIST", b"strl", chunk(b"strh", sound), chunk(b"strf", layout)),
            chunk(b"LIST", b"strl", chunk(b"strh", text), chunk(b"strf")),
        ),
        chunk(b"LIST", b"movi", *(chunk(kind, inside) for kind, inside in packets)),
        chunk(b"idx1", *(struct.pack("<4sIII", kind, 0x10, place, size) for kind, place, size in index)),
    )


def subtitled_avi(victim: Victim) -> bytes:
    """Subtitles in an AVI are a whole file, whose format FFmpeg finds out: here a playlist."""
    inside = playlist(victim.local).encode()
    header = b"GAB2\0" + struct.pack("<HIHHI", 2, 2, 0, 4, len(inside))
    return avi((b"00wb", SOUND), (b"01tx", header + inside))


def looping_avi(victim: Victim) -> bytes:
    """The index says a thousand times that the second of sound comes next."""
    return avi((b"00wb", SOUND), index=[(b"00wb", 4, len(SOUND))] * 1000)


# ------------------------------------------------------------------ MOV


def box(kind: bytes, *parts: bytes) -> bytes:
    inside = b"".join(parts)
    return struct.pack(">I", 8 + len(inside)) + kind + inside


def full(kind: bytes, *parts: bytes) -> bytes:
    """A box that begins with version and flags."""
    return box(kind, bytes(4), *parts)


def table(kind: bytes, *entries: bytes) -> bytes:
    return full(kind, struct.pack(">I", len(entries)), *entries)


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


OWN = table(b"dref", box(b"url ", numbers(1)))  # the samples are in this file


def track(*, dref: bytes = OWN, edits: int = 0, samples: int = 16000, offset: int = 0) -> bytes:
    """A second of sound of `samples` samples, each of which is played once for every edit."""
    sound = struct.pack(">6xH8xHHHHI", 1, 1, 16, 0, 0, 16000 << 16)
    stbl = box(
        b"stbl",
        table(b"stsd", box(b"sowt", sound)),
        table(b"stts", numbers(samples, 1)),
        table(b"stsc", numbers(1, samples, 1)),
        full(b"stsz", numbers(2, samples)),
        table(b"stco", numbers(offset)),
    )
    minf = box(b"minf", full(b"smhd", bytes(4)), box(b"dinf", dref), stbl)
    mdhd = full(b"mdhd", numbers(0, 0, 16000, min(samples, ENDLESS), 0))
    hdlr = full(b"hdlr", b"mhlrsoun", bytes(13))
    tkhd = box(b"tkhd", numbers(1, 0, 0, 1, 0, 1000), bytes(60))
    edts = box(b"edts", table(b"elst", *[numbers(1000, 0, 1 << 16)] * edits)) if edits else b""
    return box(b"trak", tkhd, edts, box(b"mdia", mdhd, hdlr, minf))


def movie(*tracks: bytes, more: bytes = b"") -> bytes:
    """A film whose sound lies at byte 32."""
    head = box(b"ftyp", b"qt  ", bytes(4), b"qt  ") + bytes(0)
    mvhd = full(b"mvhd", numbers(0, 0, 1000, 1000, 1 << 16), bytes(76), numbers(len(tracks) + 1))
    return head + box(b"mdat", bytes(4), SOUND) + box(b"moov", mvhd, *tracks, more)


def alias(path: str) -> bytes:
    """A Macintosh's record of where a file is."""
    name = path.rpartition("/")[2].encode()[:63]
    tail = struct.pack(">HH", 2, len(path)) + path.encode() + bytes(len(path) % 2) + struct.pack(">hH", -1, 0)
    fixed = bytes(6) + struct.pack(">HH", 150, 2) + b"\x01/" + bytes(26) + bytes(12)
    return fixed + bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16) + struct.pack(">HH", 0, 0) + bytes(16) + tail


def referring_movie(kind: bytes, said: Callable[[Victim], bytes]) -> Fill:
    """The samples are said to lie in another file."""
    return lambda victim: movie(track(dref=table(b"dref", box(kind, bytes(4), said(victim))), offset=32))


def reference_movie(victim: Victim) -> bytes:
    """QuickTime's movie that has no track, only the address of another."""
    rdrf = full(b"rdrf", b"url ", numbers(len(victim.local) + 1), victim.local.encode() + b"\0")
    return movie(more=box(b"rmra", box(b"rmda", rdrf)))


def packed_movie(victim: Victim) -> bytes:
    """A compressed header that says that it is 4 GB when unpacked."""
    head = zlib.compress(box(b"moov", bytes(64_000)))
    packed = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", numbers(ENDLESS), head))
    return box(b"ftyp", b"qt  ", bytes(4)) + box(b"moov", packed)


def nested_movie(victim: Victim) -> bytes:
    inside = b""
    for _ in range(3000):
        inside = box(b"udta", inside)
    return movie(track(offset=32), more=inside)


# ------------------------------------------------------------------ Matroska


def element(key: str, *parts: bytes) -> bytes:
    inside = b"".join(parts)
    return bytes.fromhex(key) + (len(inside) | 1 << 56).to_bytes(8, "big") + inside


def number(key: str, value: int) -> bytes:
    return element(key, value.to_bytes(8, "big"))


def matroska(*tops: bytes, tracks: int = 1, blocks: Sequence[bytes] = (SOUND,), more: bytes = b"") -> bytes:
    """A second of sound in its first track; `tops` go before the tracks, `more` into each track."""
    layout = element("E1", element("B5", struct.pack(">f", 16000)), number("9F", 1), number("6264", 16))
    entries = [
        element(
            "AE", number("D7", n), number("73C5", n), number("83", 2), element("86", b"A_PCM/INT/LIT"), layout, more
        )
        for n in range(1, tracks + 1)
    ]
    cluster = [element("A3", b"\x81", struct.pack(">h", 1000 * n), b"\x80", block) for n, block in enumerate(blocks)]
    return element("1A45DFA3", element("4282", b"matroska")) + element(
        "18538067", *tops, element("1654AE6B", *entries), element("1F43B675", number("E7", 0), *cluster)
    )


def linked_matroska(victim: Victim) -> bytes:
    """One of a chain of files: the one before, the one after, and a chapter that lies in another."""
    name, uid = str(victim.secret).encode(), bytes(range(16))
    before, after = element("3CB923", uid) + element("3C83AB", name), element("3EB923", uid) + element("3E83BB", name)
    info = element("1549A966", element("73A4", uid), element("7384", name), before, after)
    chapter = element("B6", number("73C4", 1), number("91", 0), number("92", 10**9), element("6E67", uid))
    return matroska(info, element("1043A770", element("45B9", number("45DD", 1), chapter)))


def matroska_with_attachments(victim: Victim) -> bytes:
    def attached(name: str, kind: bytes, inside: bytes) -> bytes:
        named = element("466E", name.encode()) + element("4660", kind)
        return element("61A7", named, element("465C", inside), number("46AE", 1))

    hls = playlist(victim.local).encode()
    files = [("../../../../tmp/stenograf.ttf", b"font/ttf", b"x"), (str(victim.secret), b"application/x-mpegurl", hls)]
    return matroska(
        element("1941A469", *(attached(*file) for file in files), attached("c", b"-->", victim.remote.encode()))
    )


def matroska_of_chapters(victim: Victim) -> bytes:
    title = element("80", element("85", b"chapter"))
    chapters = [element("B6", number("73C4", n), number("91", n), title) for n in range(1, 10_001)]
    return matroska(element("1043A770", element("45B9", *chapters)))


def packed_matroska(victim: Victim) -> bytes:
    """Each packet is 8 KB in the file and 8 MB when it is unpacked: the four minutes of one, twenty times."""
    packing = element("6D80", element("6240", element("5034", number("4254", 0))))
    return matroska(blocks=[zlib.compress(bytes(8_000_000), 9)] * 20, more=packing)


def nested_matroska(victim: Victim) -> bytes:
    inside = b""
    for _ in range(1000):
        inside = element("67C8", inside)
    return matroska(element("1254C367", element("7373", inside)))


# ------------------------------------------------------------------ tags, Ogg, FLAC, ASF, and what is no format of ours


def id3(*frames: tuple[bytes, bytes, int], size: int | None = None) -> bytes:
    """A tag: each frame's name, content and flags; `size` is what it says of itself."""
    inside = b"".join(name + struct.pack(">IH", len(content), flags) + content for name, content, flags in frames)
    size = len(inside) if size is None else size
    return b"ID3\x03\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + inside


def mp3_with_addresses(victim: Victim) -> bytes:
    """A cover that is only an address, a linked frame, a page to visit."""
    remote = victim.remote.encode()
    cover = (b"APIC", b"\0-->\0\x03\0" + remote, 0)
    tag = id3(cover, (b"WXXX", b"\0x\0" + remote, 0), (b"WPUB", remote, 0), (b"LINK", b"TIT2" + remote + b"\0", 0))
    return tag + (FORMATS / "speech.mp3").read_bytes()


def mp3_of_chapters(victim: Victim) -> bytes:
    chapters = [(b"CHAP", b"c%d\0" % n + numbers(n, n + 1, ENDLESS, ENDLESS), 0) for n in range(10_000)]
    return id3(*chapters) + (FORMATS / "speech.mp3").read_bytes()


def mp3_with_a_packed_tag(victim: Victim) -> bytes:
    frame = (b"TXXX", numbers(ENDLESS) + zlib.compress(bytes(10**6)), 0x80)
    return id3(frame) + (FORMATS / "speech.mp3").read_bytes()


def picture(address: str) -> bytes:
    """FLAC's and Ogg's cover, which may be an address."""
    kind, said = b"-->", address.encode()
    return numbers(3, len(kind)) + kind + numbers(0, 16, 16, 24, 0, len(said)) + said


def flac_with_an_address(victim: Victim) -> bytes:
    file, cover = (FORMATS / "speech.flac").read_bytes(), picture(victim.remote)
    return file[:42] + b"\x06" + len(cover).to_bytes(3, "big") + cover + file[42:]


def ffmpeg(*arguments: str) -> bytes:
    program = ["ffmpeg", "-v", "error", "-nostdin", *arguments, "pipe:1"]
    return subprocess.run(program, capture_output=True, check=True).stdout


def ogg_with_an_address(victim: Victim) -> bytes:
    cover = base64.b64encode(picture(victim.remote)).decode()
    told = ["-metadata:s:a", f"METADATA_BLOCK_PICTURE={cover}", "-metadata:s:a", f"COVERART={cover}"]
    return ffmpeg("-i", str(FORMATS / "speech.opus"), "-c", "copy", *told, "-f", "ogg")


def silence_of_hours(container: str) -> Fill:
    """Three hours of nothing, in 15 KB."""
    return lambda victim: ffmpeg(
        *("-f", "lavfi", "-i", "anullsrc=sample_rate=8000:channel_layout=mono", "-t", "10800"),
        *("-c:a", "flac", "-compression_level", "0", "-frame_size", "65535", "-f", container),
    )


def ogg_page_crc(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & ENDLESS
    return crc


def ogg_that_never_ends(victim: Victim) -> bytes:
    """Its last page says that it ends in six million years."""
    file = (FORMATS / "speech.opus").read_bytes()
    last = file.rindex(b"OggS")
    page = (
        file[last : last + 6]
        + struct.pack("<q", 2**62 + 2**61)
        + file[last + 14 : last + 22]
        + bytes(4)
        + file[last + 26 :]
    )
    return file[:last] + page[:22] + struct.pack("<I", ogg_page_crc(page)) + page[26:]


def asf_with_a_script(victim: Victim) -> bytes:
    """A command to open an address, among the objects of the header."""
    file = (FORMATS / "speech.wma").read_bytes()
    (size, objects) = struct.unpack_from("<QI", file, 16)
    kind, said = "URL".encode("utf-16le"), victim.remote.encode("utf-16le")
    command = struct.pack("<16xHHH", 1, 1, 3) + kind + struct.pack("<IHH", 0, 0, len(said) // 2) + said
    script = bytes.fromhex("301AFB1E620BD011A39B00A0C90348F6") + struct.pack("<Q", 24 + len(command)) + command
    return file[:16] + struct.pack("<QI", size + len(script), objects + 1) + file[28:30] + script + file[30:]


def beginning(kind: bytes) -> Fill:
    """What other formats begin with, and then an address."""
    return lambda victim: kind.ljust(64, b"\0") + victim.local.encode() + b"\0" + victim.remote.encode() + bytes(4096)


def tracker_module(victim: Victim) -> bytes:
    """Music as instructions, which jump back to the beginning for ever."""
    pattern = bytes([0, 0, 0x0B, 0]) * 256
    return bytes(950) + b"\x01\x7f" + bytes(128) + b"M.K." + pattern


def magic_lantern(victim: Victim) -> bytes:
    """A film whose continuation FFmpeg would open beside it, as movie.M00."""
    return b"MLVI" + struct.pack("<I8sQIHHIIII", 52, b"v2.0", 1, 0, 0, 1, 0, 1, 0, 25) + bytes(4096)


def addressed(container: str, *arguments: str) -> Fill:
    """A second of sound in `container`, whose title and comment are another file and an address."""
    return lambda victim: ffmpeg(
        *("-f", "lavfi", "-i", "sine=440:duration=1:sample_rate=48000", *arguments, "-strict", "-2"),
        *("-metadata", f"title={victim.local}", "-metadata", f"comment={victim.remote}", "-f", container),
    )


def aiff_with_addresses(victim: Victim) -> bytes:
    layout = struct.pack(">HIH", 1, 16000, 16) + bytes.fromhex("400cfa00000000000000")  # 16000.0 in 80 bits
    chunks = (
        (b"COMM", layout),
        (b"NAME", victim.local.encode()),
        (b"ANNO", victim.remote.encode()),
        (b"SSND", bytes(8) + SOUND),
    )
    inside = b"AIFF" + b"".join(
        kind + struct.pack(">I", len(said)) + said + bytes(len(said) % 2) for kind, said in chunks
    )
    return b"FORM" + struct.pack(">I", len(inside)) + inside


MXF = bytes.fromhex("060e2b34020501010d01020101020400") + b"\x83\0\0\x78" + bytes(120)

# What a file is called, what it must come to, and what is in it.
BINARIES: dict[str, tuple[Outcome | tuple[Outcome, ...], Fill]] = {
    # pointing elsewhere
    "url.mov": (1.0, referring_movie(b"url ", lambda v: v.local.encode() + b"\0")),
    "remote-url.mov": (1.0, referring_movie(b"url ", lambda v: v.remote.encode() + b"\0")),
    "urn.mp4": (1.0, referring_movie(b"urn ", lambda v: b"x\0" + v.local.encode() + b"\0")),
    "alias.mov": (errors.NoAudio, referring_movie(b"alis", lambda v: alias(str(v.secret)))),
    "resource.mov": (1.0, referring_movie(b"rsrc", lambda v: alias(str(v.secret)))),
    "reference.mov": (errors.NoAudio, reference_movie),
    "subtitles.avi": (1.0, subtitled_avi),
    "linked.mkv": (1.0, linked_matroska),
    "attachments.mkv": (1.0, matroska_with_attachments),
    "addresses.mp3": (2.2, mp3_with_addresses),
    "address.flac": (2.4, flac_with_an_address),
    "address.ogg": (1.8, ogg_with_an_address),
    "script.wma": (2.1, asf_with_a_script),
    "addresses.caf": (1.0, addressed("caf")),
    "addresses.aiff": (1.0, aiff_with_addresses),
    "addresses.au": (1.0, addressed("au")),
    "addresses.sox": (1.0, addressed("sox")),
    "addresses.nut": (1.0, addressed("nut")),
    "addresses.tta": (1.0, addressed("tta")),
    "addresses.wv": (1.0, addressed("wv")),
    "addresses.ts": (1.0, addressed("mpegts", "-c:a", "mp2")),
    "addresses.flv": (1.0, addressed("flv", "-c:a", "adpcm_swf", "-ar", "44100")),
    # more than they look
    "hours.flac": (errors.TooLong, silence_of_hours("flac")),
    "hours.oga": (errors.TooLong, silence_of_hours("ogg")),
    "one-sample-a-second.wav": (errors.TooLong, lambda v: wave(rate=1, bits=8)),
    "a-thousand-million-samples-a-second.wav": (errors.DamagedFile, lambda v: wave(rate=2**31 - 1)),
    "packed.mkv": (errors.TooLong, packed_matroska),
    "looping.avi": (1.0, looping_avi),
    "looping.mov": (errors.TooLong, lambda v: movie(track(edits=10_000, offset=32))),
    "streams.mkv": ((errors.DamagedFile, 1.0), lambda v: matroska(tracks=10_000)),
    "streams.mov": (errors.DamagedFile, lambda v: movie(*[track(offset=32)] * 10_000)),
    "chapters.mkv": (1.0, matroska_of_chapters),
    "chapters.mp3": (2.2, mp3_of_chapters),
    "nested.mkv": (1.0, nested_matroska),
    "nested.mov": (errors.DamagedFile, nested_movie),
    "tag.mp3": (2.2, mp3_with_a_packed_tag),
    "header.mov": (errors.DamagedFile, packed_movie),
    # lies
    "four-gigabytes.wav": (1.0, lambda v: claiming(claiming(wave(), b"RIFF"), b"data")),
    "samples.mov": (0.0, lambda v: movie(track(samples=ENDLESS, offset=32))),
    "never.ogg": (1.0, ogg_that_never_ends),
    "channels.wav": (errors.DamagedFile, lambda v: wave(channels=65535)),
    "no-channels.wav": (errors.DamagedFile, lambda v: wave(channels=0)),
    "unknown-codec.wav": (errors.UnsupportedCodec, lambda v: wave(codec=0x1234)),
    "long-tag.mp3": (errors.DamagedFile, lambda v: id3(size=2**28 - 1) + (FORMATS / "speech.mp3").read_bytes()),
    # other formats
    "material.mxf": (errors.DamagedFile, beginning(MXF)),
    "real.rm": (errors.DamagedFile, beginning(b".RMF\0\0\0\x12\0\0\0\0\0\0\0\0\0\x06")),
    "real.ra": (4.25, beginning(b".ra\xfd\0\x03")),
    "module.mod": ((errors.UnsupportedFormat, errors.NotMedia), tracker_module),
    "movie.mlv": (errors.UnsupportedFormat, magic_lantern),
    "book.aa": (errors.ProtectedFile, beginning(bytes(4) + b"\x57\x90\x75\x36")),
    "console.nsf": (errors.NotMedia, beginning(b"NESM\x1a\x01\x01\x01")),
    "picture.png": (errors.NotMedia, beginning(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")),
    "frame%03d.jpg": (errors.NotMedia, beginning(b"\xff\xd8\xff\xe0\0\x10JFIF\0")),
    "archive.wav": (errors.NotMedia, beginning(b"PK\x03\x04")),
    "program.mp3": (errors.NotMedia, beginning(b"\x7fELF\x02\x01\x01")),
}  # fmt: skip

FILES: dict[str, tuple[Outcome | tuple[Outcome, ...], Fill]] = {
    **{name: (errors.NotMedia, lambda v, said=said: said(v).encode()) for name, said in TEXTS.items()},
    **BINARIES,
}
