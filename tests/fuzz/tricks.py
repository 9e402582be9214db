"""What attackers write in place of what belongs there; most of it is from published attacks."""

from __future__ import annotations

from tests.fuzz.grammar import INNER

SPACES = (b" ", b"\t", b"  ", b"\x0b", b"\x0c", b"\xa0", b"\x85", b"\r", b"\n", b"\x00", b"")
LINE_ENDS = (
    b"\n",
    b"\r",
    b"\r\r\n",
    b"\n\r",
    b"\r\n\n",
    b"\r\n ",
    b"\r\n\t",
    b"\x00\r\n",
    b"\r\n\r",
    b"\x85",
    b"",
)
LENGTHS = (
    b"0", b"1", b"3", b"5", b"10", b"-1", b"+5", b"5 ", b" 5", b"\t5", b"0x5", b"5,5", b"5, 5", b"5, 6", b"5;", b"", b"05", b"1_0", b"1e1", b"5.0",
    b"18446744073709551616", b"9223372036854775808", b"99999999999999999999", b"4294967296", b"\xb2", b"5\x0b", b"\"5\"", b"5\x00", b"five", b"0 5", b"00000000000000000000005",
)  # fmt: skip
CODINGS = (
    b"chunked", b"Chunked", b"CHUNKED", b"xchunked", b"chunkedx", b"chunked, chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"identity, chunked",
    b"chunked, identity", b" chunked", b"\tchunked", b"chunked ", b"chunked\t", b"\x0bchunked", b"chunked\x0b", b"chunked;q=1", b"\"chunked\"", b"'chunked'", b",chunked",
    b"chunked,", b"", b"chun\x00ked", b"cow", b"trailers, chunked", b"chunke\xc4\x91", b"chunked\x00", b"x, chunked", b"chunked\r\n ", b"\r\n chunked", b"deflate",
)  # fmt: skip
LENGTH_NAMES = (
    b"Content-Length",
    b"content-length",
    b"Content_Length",
    b"Content-Length ",
    b" Content-Length",
    b"Content-Length\t",
    b"Content-Lengt\xe8",
    b"Content-Length\x00",
    b"Content Length",
)
CODING_NAMES = (
    b"Transfer-Encoding",
    b"transfer-encoding",
    b"Transfer_Encoding",
    b"Transfer-Encoding ",
    b" Transfer-Encoding",
    b"Transfer-Encoding\x0b",
    b"X-A: b\nTransfer-Encoding",
    b"Transfer-Encodin\xe7",
    b"Transfer.Encoding",
)
HOST_LINES = (
    b"Host: shop.test", b"Host: partner.test", b"Host: evil.test", b"host:shop.test", b"Host:", b"Host: shop.test, partner.test", b"Host: shop.test partner.test",
    b"Host: shop.test:99999", b"Host: shop.test:", b"Host: shop.test:80:80", b"Host: user@shop.test", b"Host: shop.test/", b"Host: shop.test\x00", b"Host : shop.test",
    b" Host: partner.test", b"Host: [::1]", b"Host: [::1", b"Host: shop..test", b"Host: .shop.test", b"Host: shop.test#", b"Host: shop.test?x", b"Host: \tshop.test\t", b"Host: sh\xf6p.test", b"H\xefst: shop.test",
    b"Host: shop%2etest", b"Host: http://shop.test", b"HOST: PARTNER.TEST", b"Host: *", b"Host: x.shop.test", b"Host: 127.0.0.1:80", b"Host: partner.test.", b"Host\x00: shop.test",
)  # fmt: skip
VERSIONS = (
    b"HTTP/1.0", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/1", b"http/1.1", b"HTTP/1.1 ", b"HTTP/01.1", b"HTTP/1.1x", b"HTTP /1.1", b"HTTP/1,1",
    b"RTSP/1.0", b"ICE/1.0", b"", b"HTTP/1.1\t", b"HTTPS/1.1", b"HTTP/1.\xb9", b"HTTP/1.1\x00", b"HTTP/9.9",
)  # fmt: skip
METHODS = (
    b"get", b"GET\x00", b"G ET", b"GE\tT", b"", b"CONNECT", b"TRACE", b"PRI", b"SETUP", b"DESCRIBE", b"SOURCE", b"M-SEARCH", b"GET:", b"G\xc9T", b"FOO", b"GETX", b"HEAD", b"QUERY", b"X" * 40, b"POST", b"OPTIONS", b"PURGE", b"\r\nGET", b" GET",
)  # fmt: skip
PATHS = (
    b"/p/../s/a", b"/p/%2e%2e/s/a", b"/p/.%2E/s/a", b"/p//s/a", b"//s/a", b"/p/%2fs", b"/p%2f..%2fs/a", b"/p\\..\\s\\a", b"/p/%5c..%5cs/a", b"/p/a;x=y", b"/p;/../s/a", b"/p/..;/s/a", b"/s/a%00", b"/%73/a",
    b"/p/%252e%252e/s/a", b"/p/%25%32%65", b"/p/%c0%ae%c0%ae/s", b"/p/%u002e", b"/p/%", b"/p/%2", b"/p/%zz", b"/p/a#b", b"/p/a?b#c", b"/p/\xc3\xa9", b"/p/a b", b"/p/a\tb", b"/p/a\x00b", b"/p/a\x7f", b"/./s/a", b"/s/.", b"/s/..", b"/S/a",
    b"*", b"shop.test:80", b"http://shop.test", b"http://shop.test/s/a", b"http://partner.test/s/a", b"HTTP://shop.test/p/a", b"https://shop.test/p/a", b"http:///p/a", b"http://shop.test?x", b"http://shop.test:80/p/a", b"http://u@shop.test/p/a",
    b"http://shop.test\\@evil/p/a", b"ftp://shop.test/p/a", b"p/a", b"?x", b"", b"/items/%73pecial", b"/items/special/", b"/items/special?", b"/items/SPECIAL", b"/same/", b"/small/../s/a", b"/p/%7e", b"/p/|^", b"/p/<>\"", b"/p/[x]", b"/p/{x}", b"/p/%0d%0aX:y", b"/p/%250a",
    b"http://partner.test/p/a", b"//evil.test/p/a", b"/p/%25", b"/p/%2525%32%65", b"/p/x%3b", b"/p/" + b"q" * 1_030,
)  # fmt: skip
CHUNK_LINES = (
    b"5\n", b"5\r", b"5 \r\n", b" 5\r\n", b"0x5\r\n", b"+5\r\n", b"-5\r\n", b"5;\r\n", b"5;\n\r\n", b"5;a=b\n\r\n", b"5;x\r\r\n", b"5;x\x00\r\n", b"5 ;x\r\n", b"5,\r\n", b"5_0\r\n", b"g\r\n", b"\r\n", b"5\x0b\r\n", b"00000000000000000005\r\n", b"fffffffffffffff\r\n",
    b"10000000000000005\r\n", b"\xb2\r\n", b"5;a=\"\r\n", b'5;a="b\r\n"\r\n', b"5;a=b;c\r\n", b"0\r\n", b"0\n", b"5\r\n\r\n", b"5;=x\r\n", b"5; ; x\r\n", b"5;a=\xe9\r\n", b"80000000\r\n", b"5;" + b"e" * 1_100 + b"\r\n", b"5\r\nX", b"6\r\n", b"4\r\n",
)  # fmt: skip
EXPECTS = (
    b"Expect: 100-continue",
    b"Expect: 100-Continue",
    b"Expect: 100-continue, x",
    b"Expect:",
    b"Expect: 200-ok",
    b"Expect: 100-continue\r\nExpect: 100-continue",
    b"Expect : 100-continue",
    b"Expect: 100-continu\xc4\x99",
)
KEYS = (
    b"X-Api-Key: agk_right", b"X-Api-Key: agk_wrong", b"X-Api-Key:agk_right", b"X-Api-Key: agk_right ", b"X-Api-Key: \tagk_right", b"X-Api-Key: agk_right, agk_right", b"X-Api-Key: agk_righ", b"X-Api-Key: agk_right\x00", b"X_Api_Key: agk_right", b"X-Api-Key : agk_right",
    b"X-Api-Key: AGK_RIGHT", b"X-Partner-Key: partner-right", b"X-Api-Key: agk_right\x0b", b"X-Api-Key\xa0: agk_right", b" X-Api-Key: agk_right",
)  # fmt: skip
STRANGE_FIELDS = (
    b"X-A", b"X-A\r\n folded", b": no name", b"X A: b", b"X\tA: b", b"X-\xe9: b", b"X-A: a\x00b", b"X-A: a\x01b", b"X-A: a\x7fb", b"X-A: a\rb", b"X-A: a\nb", b"X-A: a\r\n\tb", b"X(A): b", b"X-A;: b", b"\x00: b", b"X-A: \xff\xfe", b"@: b", b"X-A :b", b"", b"\x0bX-A: b", b"{X}: b",
    b"X-B: " + b"z" * 4_200, b"GET /s/a HTTP/1.1", b"X-A: b\r\n\r\nGET /s/inner HTTP/1.1\r\nHost: shop.test\r\nX-Api-Key: agk_right",
)  # fmt: skip
TOKENS = (
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b";", b",", b"0", b"0\r\n\r\n", b"\r\n\r\n", b"chunked", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: partner.test\r\n", b"Connection: close\r\n", b"\r\nX: y", b" folded\r\n",
    b"HTTP/1.1", b"HTTP/1.0", INNER, b"GET ", b"%2f", b"%00", b"..", b"/", b"5\r\n", b"-", b"+", b"0x", b"_", b"\x0b", b"\x0c", b"\x85", b"\xa0", b"\xff", b"\x7f", b"X-Api-Key: agk_right\r\n", b"HEAD", b"\x1f", b"#",
)  # fmt: skip
TAILS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\x00", b"x", INNER, b" ", b"\r", b"0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)  # fmt: skip
"""What may come where a message should have ended, or has."""
