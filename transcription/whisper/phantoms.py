"""Tells words that somebody said from those that Whisper writes where nobody speaks.

Whisper was trained on subtitles. Of noise it makes their last lines ("Thanks for watching"), the names of those who
made them, a description ("[Music]"), or the prompt over again. No measure tells such a segment from a short word on a
bad line: its avg_logprob is often better. So what counts first is whether speech was heard there (`vad.py`). Text is
compared with lists only where it was not, because people do say "Thank you".
"""

import re
import unicodedata
from collections.abc import Sequence

from transcription.whisper.cutting import Span
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment

SILENCE = -78.0  # dBFS; of anything quieter 16 bits leave a few steps
NEAR = 0.2  # seconds by which Whisper's times may miss the speech
UNSURE = -0.5  # the avg_logprob of a segment that may be subtitlers' words even in speech
MOST_LETTERS = 40.0  # a second; the fastest speakers say 25
FEW_LETTERS = 20  # a segment of so few may have times that are too close together


def has_speech(segment: Segment, speech: Sequence[Span]) -> bool:
    """Whether a segment lies where there is speech; the times of both are in the same sound."""
    first, last = (segment.words[0].start, segment.words[-1].end) if segment.words else (segment.start, segment.end)
    least = min(NEAR, last - first)
    return any(min(last, end + NEAR) - max(first, start - NEAR) >= least for start, end in speech)


def fault(
    segment: Segment, options: TranscriptionOptions, *, is_heard: bool, loudness: float, before: str = ""
) -> str | None:
    """Why a segment is taken for words that nobody said, for the job's log; None for what somebody said.

    `loudness` is that of its sound, in dBFS, and `before` the text of the segment before it. A threshold that is None
    is not looked at; without `no_speech_threshold`, neither are loudness, lists and prompt.
    """
    words = _words(segment.text)
    repeats = _is_above(segment.compression_ratio, options.compression_ratio_threshold)
    if repeats and (not is_heard or _is_below(segment.avg_logprob, options.logprob_threshold)):
        return "it repeats itself"
    if not is_heard and _is_below(segment.avg_logprob, options.logprob_threshold):
        return "the engine is not sure of it"
    if options.no_speech_threshold is None:
        return None
    if not words:
        return "it has no words"
    if loudness < SILENCE:
        return "silence"
    is_too_fast = _letters_a_second(segment, words) > MOST_LETTERS
    if is_too_fast and words == _words(before):  # a window that begins in the silence before a sentence may do this
        return "the text before it again, in no time"
    hears_none = segment.no_speech_prob > options.no_speech_threshold
    if is_heard:
        is_credit = hears_none and segment.avg_logprob < UNSURE and _has_credit(words)
        return "subtitlers' words" if is_credit else None
    if hears_none:
        return "the engine hears no speech"
    if _has_credit(words) or _once(words) in PHRASES:
        return "subtitlers' words"
    if _is_told(words, options) or words == _words(before):
        return "what the engine was told"
    if is_too_fast:
        return "too many words"
    return None


def _is_above(value: float, threshold: float | None) -> bool:
    return threshold is not None and value > threshold


def _is_below(value: float, threshold: float | None) -> bool:
    return threshold is not None and value < threshold


def _words(text: str) -> list[str]:
    """The words of a text for comparing: without marks and case, ё as е."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("ё", "е")
    return re.findall(r"[^\W_]+", folded)


def _once(words: Sequence[str]) -> str:
    """Words without their repetitions: "thank you" of "Thank you. Thank you."."""
    for length in range(1, len(words) // 2 + 1):
        times, rest = divmod(len(words), length)
        if rest == 0 and list(words[:length]) * times == list(words):
            return " ".join(words[:length])
    return " ".join(words)


def _has_credit(words: Sequence[str]) -> bool:
    text = " ".join(words)
    return any(credit in text for credit in CREDITS)


def _is_told(words: Sequence[str], options: TranscriptionOptions) -> bool:
    """Whether all words are from what the engine was told. The last of an echo is often cut off."""
    told = _words(" ".join(filter(None, (options.initial_prompt, options.hotwords, options.prefix))))
    return set(words[:-1]) <= set(told) and any(word.startswith(words[-1]) for word in told)


def _letters_a_second(segment: Segment, words: Sequence[str]) -> float:
    letters = sum(map(len, words))
    return letters / max(0.01, segment.end - segment.start) if letters > FEW_LETTERS else 0.0


def _folded(texts: str) -> frozenset[str]:
    return frozenset(" ".join(_words(line)) for line in texts.splitlines() if line.strip())


# What subtitles hold and nobody says: a segment that contains one of them.
CREDITS = _folded("""
    amara.org
    opensubtitles
    subtitles by
    captions by
    captioning by
    transcribed by https
    subscribe to my channel
    dont forget to like and subscribe
    редактор субтитров
    корректор субтитров
    субтитры сделал
    субтитры создавал
    субтитры подогнал
    субтитры делал
    субтитры и перевод
    субтитры от
    dimatorzok
    dima torzok
    симон синицын
    добавил субтитры
    корректор а егорова
    корректор а кулакова
    а семкин корректор
    спокойная музыка
    динамичная музыка
    веселая музыка
    грустная музыка
    тревожная музыка
    торжественная музыка
    напряженная музыка
    лирическая музыка
    музыкальная заставка
    играет музыка
    звучит музыка
    звонит телефон гудки
    субтитри
    редактор субтитрів
    untertitelung des zdf
    untertitelung im auftrag
    untertitel im auftrag
    untertitel von
    untertitel der
    untertitelung aufgrund der
    copyright wdr
    copyright swr
    swr 2020
    swr 2021
    sous titres réalisés
    sous titres faits
    sous titrage
    société radio canada
    subtítulos realizados por
    subtítulos por la comunidad
    subtitulado por
    legendas pela comunidade
    legenda adriana zanotto
    legendado por
    sottotitoli creati
    sottotitoli a cura
    sottotitoli e revisione
    qtss
    ondertiteld door
    ondertitels ingediend
    ondertiteling
    tv gelderland
    undertexter från
    undertexter av
    svensktextning
    tekstet av
    undertekster av
    danske tekster
    tekstitys
    napisy stworzone przez
    napisy wykonane
    titulky vytvořil
    titulky vytvořila
    titulky od
    překlad a titulky
    titlovi
    prijevod i obrada
    altyazı m k
    altyazı
    alt yazı
    feliratok
    subtitrarea
    subtitrări
    υπότιτλοι
    ترجمة نانسي
    اشتركوا في القناة
    זהו תרגום
    כתוביות
    ご視聴ありがとうございました
    ご視聴いただきありがとうございました
    チャンネル登録
    字幕由
    字幕志愿者
    字幕製作
    字幕by
    請不吝點贊
    请不吝点赞
    明鏡與點點
    明镜与点点
    中文字幕
    시청해 주셔서 감사합니다
    시청해주셔서 감사합니다
    구독과 좋아요
    구독 좋아요
    ghiền mì gõ
    hãy subscribe
    đăng ký kênh
    terjemahan oleh
    sari kata
    คำบรรยายโดย
""")

# What Whisper writes where nobody speaks and people say too: a segment that has no other words.
PHRASES = _folded("""
    you
    thank you
    thank you very much
    thank you so much
    thanks
    thanks for watching
    thank you for watching
    thank you for listening
    thank you for your attention
    thanks for watching and see you next time
    see you next time
    see you in the next video
    please subscribe
    like and subscribe
    bye
    bye bye
    goodbye
    okay
    ok
    oh
    ah
    uh
    um
    hmm
    mm
    mhm
    huh
    wow
    yeah
    so
    the
    a
    i
    the end
    to be continued
    silence
    music
    upbeat music
    soft music
    dramatic music
    applause
    applause and music
    laughter
    blank audio
    inaudible
    foreign
    beep
    продолжение следует
    спасибо
    спасибо за просмотр
    спасибо за внимание
    спасибо за субтитры
    всем пока
    пока
    до свидания
    до встречи
    до новых встреч
    до скорой встречи
    подписывайтесь на канал
    подписывайтесь на мой канал
    подписывайтесь на наш канал
    ставьте лайки
    музыка
    тихая музыка
    музыка и аплодисменты
    аплодисменты
    смех
    стук
    стук в дверь
    звонок
    телефонный звонок
    звонок в дверь
    гудок
    гудок поезда
    гудки
    выстрел
    выстрелы
    взрыв
    взрывы
    крики
    плач
    шум
    шум мотора
    шум двигателя
    шум дождя
    шум ветра
    тишина
    пение
    пение птиц
    поет
    свист
    вздох
    стон
    кашель
    лай собак
    а
    и
    о
    ой
    ну
    угу
    ага
    дякую
    дякую за перегляд
    дякую за увагу
    продовження слідує
    vielen dank
    danke
    danke schön
    vielen dank fürs zuschauen
    danke fürs zuschauen
    bis zum nächsten mal
    tschüss
    musik
    merci
    merci beaucoup
    merci d avoir regardé
    merci d avoir regardé cette vidéo
    au revoir
    musique
    gracias
    muchas gracias
    gracias por ver el video
    gracias por ver
    suscríbete
    suscríbete al canal
    hasta la próxima
    música
    obrigado
    obrigada
    tchau
    tchau tchau
    obrigado por assistir
    até a próxima
    e aí
    grazie
    grazie a tutti
    grazie per la visione
    ciao
    musica
    dank je wel
    bedankt voor het kijken
    bedankt
    muziek
    tack
    tack för att du tittade
    tack för att ni tittade
    takk for att du så på
    takk for at du så på
    takk
    tak
    tak fordi du så med
    kiitos
    kiitos katsomisesta
    kiitos kun katsoit
    dziękuję
    dziękuję za uwagę
    dziękuje za obejrzenie
    dzięki za oglądanie
    do zobaczenia
    děkuji
    děkuji za pozornost
    konec
    ďakujem
    hvala
    hvala na gledanju
    hvala što pratite kanal
    благодаря
    благодаря за гледането
    хвала
    teşekkürler
    izlediğiniz için teşekkürler
    izlediğiniz için teşekkür ederim
    teşekkür ederim
    müzik
    köszönöm
    köszönöm a figyelmet
    köszönöm hogy megnézted
    mulțumesc
    mulțumesc pentru vizionare
    ευχαριστώ
    شكرا
    شكرا للمشاهدة
    شكرا لكم
    موسيقى
    תודה
    תודה רבה
    תודה שצפיתם
    متشکرم
    धन्यवाद
    ありがとうございました
    ありがとうございます
    おやすみなさい
    はい
    ん
    謝謝
    謝謝觀看
    谢谢
    谢谢观看
    谢谢大家
    謝謝大家
    下次再见
    嗯
    감사합니다
    고맙습니다
    네
    cảm ơn
    cảm ơn các bạn đã theo dõi
    cảm ơn các bạn đã xem
    cảm ơn bạn đã xem
    terima kasih
    terima kasih telah menonton
    terima kasih kerana menonton
    ขอบคุณ
    ขอบคุณครับ
    ขอบคุณที่รับชม
    diolch
    diolch yn fawr
    diolch yn fawr iawn
""")
