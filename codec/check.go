package codec

import "encoding/binary"

// Limits of what CheckMsgpack accepts.
const (
	// MaxDepth is how deeply arrays and maps may nest. Decoding recurses, and a
	// goroutine's stack is bounded; real values nest a few levels.
	MaxDepth = 64
	// MaxElements is how many elements one value may have, over all levels.
	MaxElements = 1 << 20
)

// CheckMsgpack reads b once from front to back, allocates nothing, and returns an error
// unless b is exactly one MessagePack value whose every length fits into the bytes that
// are there, within MaxDepth and MaxElements. It makes decoding hostile bytes safe:
// decoders allocate what a length says before they look whether the bytes are there.
// The error wraps ErrValue. The format: https://github.com/msgpack/msgpack/blob/master/spec.md
func CheckMsgpack(b []byte) error {
	var left [MaxDepth + 1]uint64 // elements that each open level still needs
	left[0] = 1
	depth, elements, i := 0, uint64(0), 0
	for {
		for left[depth] == 0 {
			if depth == 0 {
				if i != len(b) {
					return badValue("%d bytes after the value", len(b)-i)
				}
				return nil
			}
			depth--
		}
		left[depth]--
		if i >= len(b) {
			return badValue("cut short after %d bytes", i)
		}
		c := b[i]
		i++
		var size, width, children uint64 // bytes that follow; width of a length field before them
		container := false
		per := uint64(1)
		switch {
		case c <= 0x7f || c >= 0xe0 || c == 0xc0 || c == 0xc2 || c == 0xc3: // fixint, nil, bool
		case c <= 0x8f: // fixmap
			container, children, per = true, uint64(c&0x0f), 2
		case c <= 0x9f: // fixarray
			container, children = true, uint64(c&0x0f)
		case c <= 0xbf: // fixstr
			size = uint64(c & 0x1f)
		case c == 0xc1:
			return badValue("byte 0xc1 at %d", i-1)
		case c <= 0xc6: // bin 8, 16, 32
			width = 1 << (c - 0xc4)
		case c <= 0xc9: // ext 8, 16, 32: a type byte follows the length
			width, size = 1<<(c-0xc7), 1
		case c == 0xca: // float 32
			size = 4
		case c == 0xcb: // float 64
			size = 8
		case c <= 0xcf: // uint 8 to 64
			size = 1 << (c - 0xcc)
		case c <= 0xd3: // int 8 to 64
			size = 1 << (c - 0xd0)
		case c <= 0xd8: // fixext 1 to 16, after a type byte
			size = 1 + 1<<(c-0xd4)
		case c <= 0xdb: // str 8, 16, 32
			width = 1 << (c - 0xd9)
		case c <= 0xdd: // array 16, 32
			container, width = true, 2<<(c-0xdc)
		default: // 0xde, 0xdf: map 16, 32
			container, width, per = true, 2<<(c-0xde), 2
		}
		rest := uint64(len(b) - i)
		if width > rest {
			return badValue("cut short after %d bytes", i)
		}
		var length uint64
		switch width {
		case 1:
			length = uint64(b[i])
		case 2:
			length = uint64(binary.BigEndian.Uint16(b[i:]))
		case 4:
			length = uint64(binary.BigEndian.Uint32(b[i:]))
		}
		i, rest = i+int(width), rest-width
		if !container {
			if size += length; size > rest {
				return badValue("%d bytes at %d where %d are left", size, i, rest)
			}
			i += int(size)
			continue
		}
		children = (children + length) * per
		if children > rest { // each element has at least a byte
			return badValue("%d elements at %d where %d bytes are left", children, i, rest)
		}
		if elements += children; elements > MaxElements {
			return badValue("more than %d elements", MaxElements)
		}
		if depth == MaxDepth {
			return badValue("nested deeper than %d", MaxDepth)
		}
		depth++
		left[depth] = children
	}
}
