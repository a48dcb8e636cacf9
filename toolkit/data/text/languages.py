"""Codes of languages, as `corpus.language` gives them to the sentence splitter, which would take any word for one."""

import difflib

from toolkit.errors import UserError

# ISO 639-1, and of ISO 639-3 the languages that sentencex knows of and that have no shorter code.
_NAMES = dict(entry.split(" ", 1) for entry in """
aa Afar; ab Abkhazian; ae Avestan; af Afrikaans; ak Akan; am Amharic; an Aragonese; ar Arabic; as Assamese; av
Avaric; ay Aymara; az Azerbaijani; ba Bashkir; be Belarusian; bg Bulgarian; bi Bislama; bm Bambara; bn Bengali; bo
Tibetan; br Breton; bs Bosnian; ca Catalan; ce Chechen; ch Chamorro; co Corsican; cr Cree; cs Czech; cu Church
Slavic; cv Chuvash; cy Welsh; da Danish; de German; dv Divehi; dz Dzongkha; ee Ewe; el Greek; en English; eo
Esperanto; es Spanish; et Estonian; eu Basque; fa Persian; ff Fulah; fi Finnish; fj Fijian; fo Faroese; fr French;
fy Frisian; ga Irish; gd Scottish Gaelic; gl Galician; gn Guarani; gu Gujarati; gv Manx; ha Hausa; he Hebrew; hi
Hindi; ho Hiri Motu; hr Croatian; ht Haitian; hu Hungarian; hy Armenian; hz Herero; ia Interlingua; id Indonesian;
ie Interlingue; ig Igbo; ii Sichuan Yi; ik Inupiaq; io Ido; is Icelandic; it Italian; iu Inuktitut; ja Japanese; jv
Javanese; ka Georgian; kg Kongo; ki Kikuyu; kj Kuanyama; kk Kazakh; kl Kalaallisut; km Khmer; kn Kannada; ko Korean;
kr Kanuri; ks Kashmiri; ku Kurdish; kv Komi; kw Cornish; ky Kirghiz; la Latin; lb Luxembourgish; lg Ganda; li
Limburgan; ln Lingala; lo Lao; lt Lithuanian; lu Luba-Katanga; lv Latvian; mg Malagasy; mh Marshallese; mi Maori; mk
Macedonian; ml Malayalam; mn Mongolian; mr Marathi; ms Malay; mt Maltese; my Burmese; na Nauru; nb Bokmål; nd North
Ndebele; ne Nepali; ng Ndonga; nl Dutch; nn Nynorsk; no Norwegian; nr South Ndebele; nv Navajo; ny Chichewa; oc
Occitan; oj Ojibwa; om Oromo; or Oriya; os Ossetian; pa Panjabi; pi Pali; pl Polish; ps Pushto; pt Portuguese; qu
Quechua; rm Romansh; rn Rundi; ro Romanian; ru Russian; rw Kinyarwanda; sa Sanskrit; sc Sardinian; sd Sindhi; se
Northern Sami; sg Sango; sh Serbo-Croatian; si Sinhala; sk Slovak; sl Slovenian; sm Samoan; sn Shona; so Somali; sq
Albanian; sr Serbian; ss Swati; st Southern Sotho; su Sundanese; sv Swedish; sw Swahili; ta Tamil; te Telugu; tg
Tajik; th Thai; ti Tigrinya; tk Turkmen; tl Tagalog; tn Tswana; to Tonga; tr Turkish; ts Tsonga; tt Tatar; tw Twi;
ty Tahitian; ug Uighur; uk Ukrainian; ur Urdu; uz Uzbek; ve Venda; vi Vietnamese; vo Volapük; wa Walloon; wo Wolof;
xh Xhosa; yi Yiddish; yo Yoruba; za Zhuang; zh Chinese; zu Zulu
""".strip().replace("\n", " ").split("; "))
_MORE = frozenset("""
abs ace acm ady aeb aln als alt ami anp arc arn arq ary arz ast atj avk awa azb ban bar bbc bcc bci bcl bdr bew bho
bjn blk bpy bqi btm bug bxr cdo ceb chr crh csb dag diq dsb dtp dty egl ext fit fon frp frr fur gag gan gcf gcr glk
gom gor got gsw guc hak haw hif hil hsb hyw iba ilo inh jam jbo jut kaa kab kbd kbp kea kge khw kiu kjh kjp koi krc
krl ksh kum lad lbe lez lfn lij liv lki lld lmo lrc ltg lua lus luz lzh lzz mad mag mai mdf mhr min mnc mni mnw mrj
mui mwl myv mzn nan nap nds new nia nqo nrm nso nyo olo pag pam pap pcd pdc pdt pfl pms pnb pnt ppl prg qug rgn rif
rmy rsk rue rup ruq sah sat scn sco sdc sdh sgs shi shn shy sjd skr sli sma smn srn stq szl szy tay tcy tet tly trv
tyv udm vec vep vls vmf vot vro war wls wuu xal xmf yue zea zgh
""".split())


def check_language(code: str, key: str) -> None:
    """UserError for a code that no language has, or that the sentence splitter would not know; `key` is its option.

    A variant may follow after a hyphen, as in zh-hans.
    """
    if code == code.lower() and code.split("-")[0] in {*_NAMES, *_MORE}:
        return
    plain = code.replace("_", "-").split("-")[0].lower().strip()
    by_name = {name.lower(): known for known, name in _NAMES.items()}
    close = difflib.get_close_matches(plain, by_name, n=1, cutoff=0.75)
    if plain in _NAMES:
        found = plain
    elif close:
        found = by_name[close[0]]
    elif len(plain) == 3 and plain[:2] in _NAMES:  # ISO 639-2 often goes on from there
        found = plain[:2]
    else:
        found = next(iter(difflib.get_close_matches(plain, _NAMES, n=1, cutoff=0.6)), None)
    hint = f"Did you mean '{found}' ({_NAMES[found]})?" if found else "Give one such as en, de or zh."
    raise UserError(f"{key} is {code!r}, which is no ISO 639-1 code of a language. {hint}")
