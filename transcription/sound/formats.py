"""Which of FFmpeg's formats and codecs are read, and why the others are not.

Everything is read that is only arithmetic over the file's own bytes. What FFmpeg could be made to do besides stays out:
opening another file or address, using a device, running a script or an emulator. The names are FFmpeg's; those that a
build does not know are ignored, and what this module does not know is not read. docs/formats.md is for people.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from transcription import errors


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# ------------------------------------------------------------------ formats

# Recognised by their bytes.
DEMUXERS = _names("""
    3dostr 4xm aac aax ac3 ac4 ace acm act adp ads adx aea aiff aix alp amr amrnb amrwb apac apc ape apm argo_asf
    argo_brp argo_cvg asf asf_o ast au avi avr avs bethsoftvid bfi bfstm bink binka bit boa bonk brstm c93 caf cdxl
    codec2 dcstr derf dhav dsf dsicin dss dts dtshd dv dxa ea ea_cdata eac3 epaf film_cpk flac flv fsb fwse gdv genh
    gxf hca hcom hxvs iamf idcin iff ifv ilbc ipmovie ircam iss ivr jv kux kvag laf lc3 live_flv loas luodat lvf lxf
    matroska mca mgsts mlp mm mmf mods moflex mov mp3 mpc mpc8 mpeg mpegts msf mtaf mtv musx mv mxf nistsphere nsp nsv
    nut nuv ogg oma osq paf pmp pp_bnk psxstr pva pvf qcp qoa r3d redspark rka rl2 rm roq rpl rsd s337m scd sdns sds sdx
    sga shn siff simbiosis_imx smjpeg smk smush sol sox spdif svag svs swf tak thp tiertexseq tmv truehd tta ty usm vag
    vividas vivo vmd voc vpk vqf w64 wady wav wavarc wc3movie wsaud wsd wsvqa wtv wv wve xa xmd xmv xvag xwma yop
    """)

# Without a signature: any file could be one of these, so FFmpeg must not detect them. (It detects gsm, by half a byte
# in 33, and takes silence in A-law for it.) The owner's file name may choose one of them (`headerless`).
NAMED = _names("afc alaw bmv daud g722 g723_1 g729 gsm mulaw mvi mxg rso s16le sbc")

OPENS_OTHERS = "opens other files or addresses"
DEVICE = "is a device or a disc of this machine"
SCRIPT = "is a script, which would be run"
EMULATOR = "plays notes and programs by a library that is no part of FFmpeg"
PROTECTED = "is protected by its seller"
UNSAID = "does not say its rate, channels or packing"
NO_SOUND = "is a video without sound"
NO_RECORDING = "is a picture, subtitles or another text"

# Why each of the others stays out.
REFUSED_DEMUXERS: Mapping[str, tuple[str, ...]] = {
    OPENS_OTHERS: _names("concat dash hls imf image2 mlv rtp rtsp sap sdp vobsub webm_dash_manifest"),
    DEVICE: _names("""
        alsa avfoundation bktr decklink dshow dvdvideo fbdev gdigrab iec61883 jack kmsgrab lavfi libcdio libdc1394
        openal oss pulse sndio v4l2 vfwcap x11grab xcbgrab
    """),
    SCRIPT: _names("avisynth sbg vapoursynth"),
    EMULATOR: _names("libgme libmodplug libopenmpt"),
    PROTECTED: ("aa",),
    UNSAID: _names(
        """
        aptx aptx_hd bitpacked codec2raw data dfpwm f32be f32le f64be f64le g726 g726le g728 mpegtsraw s16be s24be s24le
        s32be s32le s8 sln u16be u16le u24be u24le u32be u32le u8 vidc
    """
    ),
    NO_SOUND: _names("""
        apv av1 avs2 avs3 cavsvideo cine dfa dirac dnxhd evc filmstrip flic h261 h263 h264 hevc hnm ingenient ipu iv8
        ivf lmlm4 m4v mjpeg mjpeg_2000 mpegvideo mpjpeg msnwctcp nc obu pdv rawvideo sdr2 ser v210 v210x vc1 vc1test vvc
        yuv4mpegpipe
    """),
    NO_RECORDING: _names("""
        adf alias_pix anm apng aqtitle ass bin bmp_pipe brender_pix cdg cri_pipe dds_pipe dpx_pipe dvbsub dvbtxt
        exr_pipe ffmetadata fits frm gem_pipe gif gif_pipe hdr_pipe ico idf image2pipe j2k_pipe jacosub jpeg_pipe
        jpegls_pipe jpegxl_anim jpegxl_pipe jpegxs_pipe lrc mcc microdvd mpl2 mpsub msp pam_pipe pbm_pipe pcx_pipe
        pfm_pipe pgm_pipe pgmyuv_pipe pgx_pipe phm_pipe photocd_pipe pictor_pipe pjs png_pipe ppm_pipe psd_pipe
        qdraw_pipe qoi_pipe rcwt realtext sami scc sgi_pipe srt stl subviewer subviewer1 sunrast_pipe sup svg_pipe
        tedcaptions tiff_pipe tty txd vbn_pipe vplayer webp_anim webp_pipe webvtt xbin xbm_pipe xpm_pipe xwd_pipe
    """),
}

# ------------------------------------------------------------------ codecs

# No decoder of pictures: FFmpeg would open it even while it only probes, and most of its vulnerabilities are there.
DECODERS = _names("""
    8svx_exp 8svx_fib aac aac_fixed aac_latm ac3 ac3_fixed acelp.kelvin adpcm_4xm adpcm_adx adpcm_afc adpcm_agm
    adpcm_aica adpcm_argo adpcm_circus adpcm_ct adpcm_dtk adpcm_ea adpcm_ea_maxis_xa adpcm_ea_r1 adpcm_ea_r2 adpcm_ea_r3
    adpcm_ea_xas adpcm_ima_acorn adpcm_ima_alp adpcm_ima_amv adpcm_ima_apc adpcm_ima_apm adpcm_ima_cunning
    adpcm_ima_dat4 adpcm_ima_dk3 adpcm_ima_dk4 adpcm_ima_ea_eacs adpcm_ima_ea_sead adpcm_ima_escape adpcm_ima_hvqm2
    adpcm_ima_hvqm4 adpcm_ima_iss adpcm_ima_magix adpcm_ima_moflex adpcm_ima_mtf adpcm_ima_oki adpcm_ima_pda
    adpcm_ima_qt adpcm_ima_rad adpcm_ima_smjpeg adpcm_ima_ssi adpcm_ima_wav adpcm_ima_ws adpcm_ima_xbox adpcm_ms
    adpcm_mtaf adpcm_n64 adpcm_psx adpcm_psxc adpcm_sanyo adpcm_sbpro_2 adpcm_sbpro_3 adpcm_sbpro_4 adpcm_swf adpcm_thp
    adpcm_thp_le adpcm_vima adpcm_xa adpcm_xmd adpcm_yamaha adpcm_zork ahx alac als amrnb amrwb apac ape aptx aptx_hd
    atrac1 atrac3 atrac3al atrac3plus atrac3plusal atrac9 binkaudio_dct binkaudio_rdft bmv_audio bonk cbd2_dpcm cook dca
    derf_dpcm dfpwm dolby_e dsd_lsbf dsd_lsbf_planar dsd_msbf dsd_msbf_planar dsicinaudio dss_sp dst dvaudio eac3 evrc
    fastaudio flac ftr g722 g723_1 g726 g726le g728 g729 gremlin_dpcm gsm gsm_ms hca hcom iac ilbc imc interplay_dpcm
    interplayacm libcodec2 libgsm libgsm_ms libilbc liblc3 libopencore_amrnb libopencore_amrwb libopus libspeex
    libvorbis mace3 mace6 metasound misc4 mlp mp1 mp1float mp2 mp2float mp3 mp3adu mp3adufloat mp3float mp3on4
    mp3on4float mpc7 mpc8 msnsiren nellymoser on2avc opus osq paf_audio pcm_alaw pcm_bluray pcm_dvd pcm_f16le pcm_f24le
    pcm_f32be pcm_f32le pcm_f64be pcm_f64le pcm_lxf pcm_mulaw pcm_s16be pcm_s16be_planar pcm_s16le pcm_s16le_planar
    pcm_s24be pcm_s24daud pcm_s24le pcm_s24le_planar pcm_s32be pcm_s32le pcm_s32le_planar pcm_s64be pcm_s64le pcm_s8
    pcm_s8_planar pcm_sga pcm_u16be pcm_u16le pcm_u24be pcm_u24le pcm_u32be pcm_u32le pcm_u8 pcm_vidc qcelp qdm2 qdmc
    qoa ralf real_144 real_288 rka roq_dpcm s302m sbc sdx2_dpcm shorten sipr siren smackaud sol_dpcm speex tak truehd
    truespeech tta twinvq vmdaudio vorbis wady_dpcm wavarc wavpack wmalossless wmapro wmav1 wmav2 wmavoice ws_snd1
    xan_dpcm xma1 xma2
    """)

REFUSED_DECODERS: Mapping[str, tuple[str, ...]] = {
    "makes sound that was never recorded": ("anull", "comfortnoise", "wavesynth"),
    "is an experiment that FFmpeg itself does not decode unasked": ("sonic",),
}

# ------------------------------------------------------------------ what a file's name says


@dataclass(frozen=True)
class Headerless:
    """A format that only a file's name tells; the sound is mono, and its rate is None where the format has but one."""

    demuxer: str
    sample_rate: int | None = None

    @property
    def arguments(self) -> list[str]:
        """FFmpeg's arguments before the input."""
        rate = [] if self.sample_rate is None else ["-ar", str(self.sample_rate), "-ac", "1"]
        return ["-f", self.demuxer, *rate]


# Most are telephone systems' (Asterisk, FreeSWITCH), which write them always at the same rate.
BY_ENDING: Mapping[str, Headerless] = {
    **dict.fromkeys((".g722", ".722"), Headerless("g722")),
    **dict.fromkeys((".g723", ".g723_1", ".tco", ".rco"), Headerless("g723_1")),
    ".g729": Headerless("g729"),
    **dict.fromkeys((".ul", ".ulaw", ".ulw", ".mulaw", ".mu", ".pcmu"), Headerless("mulaw", 8000)),
    **dict.fromkeys((".al", ".alaw", ".alw", ".pcma"), Headerless("alaw", 8000)),
    **dict.fromkeys((".sbc", ".msbc"), Headerless("sbc")),
    ".afc": Headerless("afc"),
    ".bmv": Headerless("bmv"),
    ".mvi": Headerless("mvi"),
    ".mxg": Headerless("mxg"),
    ".rso": Headerless("rso"),
    **dict.fromkeys((".302", ".daud"), Headerless("daud")),
    ".sln": Headerless("s16le", 8000),
    **{f".sln{kilohertz}": Headerless("s16le", 1000 * kilohertz) for kilohertz in (12, 16, 24, 32, 48, 96, 192)},
    ".sln44": Headerless("s16le", 44100),
}


GSM_BYTES = 33  # a frame, whose first four bits are always the same


def headerless(name: str, head: bytes) -> Headerless | None:
    """The format without a signature that a file's name tells, or its first bytes in their regularity."""
    ending = _ending(name)
    return BY_ENDING.get(ending) or (Headerless("gsm") if _is_gsm(head, is_named=ending == ".gsm") else None)


def _ending(name: str) -> str:
    return PurePath(name).suffix.lower()


def _is_gsm(head: bytes, *, is_named: bool) -> bool:
    marks = head[::GSM_BYTES]
    share = sum(mark >> 4 == 0xD for mark in marks) / max(len(marks), 1)
    if is_named:
        return share > 0.9
    return share == 1 and len(marks) > 32 and len(set(head)) > 64  # other telephone codecs' silence is the same bytes


def is_signed(demuxer: str) -> bool:
    """Whether a format is recognised by its bytes. FFmpeg goes by a path's ending where it has nothing else."""
    return demuxer not in ("", *NAMED, *REFUSED_DEMUXERS[UNSAID])


# ------------------------------------------------------------------ what is said of a file that is not read

# What people call them; FFmpeg's own name is said of the others.
NAMES: Mapping[str, str] = {
    "ac4": "Dolby AC-4",
    "ac-4": "Dolby AC-4",
    "apple_apac": "Apple Positional Audio",
    "celt": "CELT",
    "codec2": "Codec 2",
    "lc3": "LC3",
    "libgme": "video game music",
    "libmodplug": "tracker music",
    "libopenmpt": "tracker music",
    "mha1": "MPEG-H 3D Audio",
    "mhm1": "MPEG-H 3D Audio",
    "mlv": "Magic Lantern video",
    "mpegh_3d_audio": "MPEG-H 3D Audio",
    "sonic": "Sonic",
    "wavesynth": "FFmpeg's synthesiser",
}
ENCRYPTED_TAGS = {"aavd", "drms", "enca"}
ENCRYPTED = re.compile(r"activation_bytes option is missing|DRM protected stream|Unsupported encryption")
NO_DECODER = re.compile(r"no decoder found for: (\S+)|Decoder \(codec (\S+)\) not found")
NOT_LISTED = re.compile(r"Codec \((\S+)\) not on whitelist")
TAG = re.compile(
    r"Audio: none \((?:([^\s\[]+) / )?.*?(0x[0-9A-F]+)\)|Unknown/unsupported AVCodecID (\S+?)\.?$", re.MULTILINE
)


def unread_codec(messages: str) -> errors.InputProblem | None:
    """The problem of a file whose sound FFmpeg could not begin to decode; None if FFmpeg says something else."""
    if ENCRYPTED.search(messages):
        return errors.ProtectedFile()
    found = NO_DECODER.findall(messages)
    codec = next(filter(None, found[-1])) if found else ""
    if codec == "none":
        tag = TAG.search(messages)
        codec = next(filter(None, tag.groups())) if tag else ""
    if not codec and "Error while opening decoder" in messages and (refused := NOT_LISTED.findall(messages)):
        codec = refused[-1]
    if codec in ENCRYPTED_TAGS:
        return errors.ProtectedFile()
    return errors.UnsupportedCodec(codec=NAMES.get(codec, codec)) if codec else None


# Recordings, and what is taken for one, of which FFmpeg knows nothing; and those whose names alone tell what they are.
UNKNOWN_BEGINNINGS: Mapping[bytes, str] = {
    b"MThd": "MIDI (notes without sound)",
    b"MS_VOICE": "Sony's voice recorder (MSV, DVF)",
    b"\3ds2": "Olympus DS2",
    b"\3enc": "Olympus DS2, encrypted",
}
UNKNOWN_ENDINGS: Mapping[str, str] = {
    ".aptx": "aptX without a header",
    ".aptxhd": "aptX HD without a header",
    ".dfpwm": "DFPWM without a header",
    ".g726": "G.726 without a header",
    ".pcm": "PCM without a header",
    ".vox": "Dialogic VOX",
}


def unread_format(demuxer: str, name: str, head: bytes) -> errors.InputProblem:
    """The problem of a file named `name` that was not opened; `demuxer` is what FFmpeg takes it for."""
    if demuxer in DEMUXERS:
        return errors.DamagedFile(detail="nothing in it could be opened")
    reason = next((reason for reason, names in REFUSED_DEMUXERS.items() if demuxer in names), "")
    if reason == PROTECTED:
        return errors.ProtectedFile()
    if reason == NO_SOUND:
        return errors.NoAudio()
    beginnings = (format for beginning, format in UNKNOWN_BEGINNINGS.items() if head.startswith(beginning))
    if format := next(beginnings, "") or (not is_signed(demuxer) and UNKNOWN_ENDINGS.get(_ending(name), "")):
        return errors.UnsupportedFormat(format=format)
    is_playlist = reason == OPENS_OTHERS and demuxer not in NAMES
    if not is_signed(demuxer) or is_playlist or reason in (SCRIPT, NO_RECORDING):
        return errors.NotMedia(name=name)
    return errors.UnsupportedFormat(format=NAMES.get(demuxer, demuxer))


PROTECTED_TRACK = re.compile(rb"schm\0{4}(cenc|cens|cbc1|cbcs|itun)")


def is_protected(head: bytes) -> bool:
    """Whether a film or a song that begins so is encrypted; FFmpeg only says that its frames are damaged."""
    return PROTECTED_TRACK.search(head) is not None


HEAD_BYTES = 8 * 1024**2  # a browser begins a WebM's cluster at least every half minute, an MP4's fragment more often
EBML = b"\x1a\x45\xdf\xa3"
CLUSTER = re.compile(
    rb"\x1f\x43\xb6\x75([\x80-\xff]|[\x40-\x7f].|[\x20-\x3f].{2}|[\x10-\x1f].{3}|\x01.{7})\xe7[\x81-\x88]", re.DOTALL
)
FRAGMENT = re.compile(rb"moof\0\0\0\x10mfhd")
OGG_PAGE = re.compile(rb"OggS\0([\0-\7])")


def is_beginning_missing(head: bytes) -> bool:
    """Whether a recording of a browser lacks its header, of which these are the first `HEAD_BYTES`.

    A browser sends a recording in pieces, of which only the first says what it is.
    """
    if fragment := FRAGMENT.search(head):
        return b"moov" not in head[: fragment.start()]
    if page := OGG_PAGE.search(head):
        return not page[1][0] & 2  # the flag of a stream's first page
    return not head.startswith(EBML) and CLUSTER.search(head) is not None
