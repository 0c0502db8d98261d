"""Reading the bits of consent strings: segments of web-safe base64 whose six bits a character are fields in big-endian order.

IAB Tech Lab, "Transparency and Consent String with Global Vendor & CMP List Formats" v2, "TC String Format", and "Global
Privacy Platform String", "Creating a GPP String". The alphabet is that of RFC 4648, section 5, without padding characters.
The platform's document prints the table of section 4, with "+" and "/", yet it allows only URL-safe characters and writes
"-" in its examples.

The number of characters is free: an encoder fills its last character with zero bits, and some fill up to whole bytes or to
24 bits. Bits behind the last field are therefore not looked at, and a field that ends behind the last bit is malformed.
"""

from binascii import a2b_base64
from collections.abc import Iterator

LARGEST_ID = 65_535  # vendors are numbered in 16 bits, in all sections of both frameworks

# Any other byte becomes "!", which base64 refuses in strict mode, and so are "+", "/" and "=".
_WEB_SAFE = bytearray(b"!" * 256)
for _digit in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789":
    _WEB_SAFE[_digit] = _digit
_WEB_SAFE[ord("-")], _WEB_SAFE[ord("_")] = b"+/"

_FIBONACCI = [1, 2]
while _FIBONACCI[-1] + _FIBONACCI[-2] <= LARGEST_ID:
    _FIBONACCI.append(_FIBONACCI[-1] + _FIBONACCI[-2])
_LONGEST_CODE = len(_FIBONACCI) + 1  # and the one that ends it


class Malformed(ValueError):
    """A consent string that does not parse, or that its framework calls invalid."""


class Bits:
    """The bits of one segment, read from left to right; a read costs the bits that it takes, not those of the segment."""

    __slots__ = ("_data", "_at", "_end")

    def __init__(self, text: str):
        """Raises ValueError where ``text`` is not web-safe base64."""
        digits = text.encode("ascii").translate(_WEB_SAFE)
        self._data = a2b_base64(digits + b"AAA"[: -len(digits) % 4], strict_mode=True)
        self._at, self._end = 0, 6 * len(digits)

    def take(self, count: int) -> int:
        """The next ``count`` bits as an integer; Malformed where fewer are left."""
        at, end = self._at, self._at + count
        if end > self._end:
            raise Malformed("the string ends within a field")
        self._at = end
        return (int.from_bytes(self._data[at >> 3 : end + 7 >> 3], "big") >> (-end & 7)) & (1 << count) - 1

    def field(self, count: int, number: int) -> bool:
        """Whether bit ``number``, counted from 1, is set in the next ``count`` bits, which are passed."""
        at, end = self._at, self._at + count
        if end > self._end:
            raise Malformed("the string ends within a bit field")
        self._at = end
        if not 0 < number <= count:
            return False
        at += number - 1
        return self._data[at >> 3] >> (~at & 7) & 1 == 1

    def fibonacci(self) -> int:
        """The next Fibonacci integer, 1 to LARGEST_ID: a digit each for 1, 2, 3, 5, 8 … and a one behind the last that is set.

        No sum of Fibonacci numbers needs neighbours, so two ones are the end of the number ("About Fibonacci Encoding").
        """
        at = self._at
        count = min(_LONGEST_CODE, self._end - at)
        digits = f"{self.take(count):0{count}b}"
        length = digits.find("11") + 1
        number = sum(value for value, digit in zip(_FIBONACCI, digits[:length]) if digit == "1")
        if not 0 < number <= LARGEST_ID:
            raise Malformed("a Fibonacci integer does not end or is too large")
        self._at = at + length + 1
        return number

    def fibonacci_ranges(self) -> Iterator[tuple[int, int]]:
        """Passes a Range (Fibonacci) and yields its entries (first id, last id); they ascend, each counts from the one before."""
        end = 0
        for _ in range(self.take(12)):
            is_range = self.take(1)
            start = end + self.fibonacci()
            end = start + self.fibonacci() if is_range else start
            if end > LARGEST_ID:
                raise Malformed("a range beyond the largest id")
            yield start, end

    def left(self) -> int:
        """How many bits are left."""
        return self._end - self._at
