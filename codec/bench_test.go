package codec

import (
	"bytes"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

func BenchmarkAppend(b *testing.B) {
	p := sample()
	var buf []byte
	b.Run("msgpack", func(b *testing.B) {
		b.ReportAllocs()
		c := Msgpack[product]()
		for b.Loop() {
			buf, _ = c.Append(buf[:0], p)
		}
		b.SetBytes(int64(len(buf)))
	})
	b.Run("msgpack.Marshal", func(b *testing.B) { // the library's own: structs as maps
		b.ReportAllocs()
		var out []byte
		for b.Loop() {
			out, _ = msgpack.Marshal(&p)
		}
		b.SetBytes(int64(len(out)))
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		c := JSON[product]()
		for b.Loop() {
			buf, _ = c.Append(buf[:0], p)
		}
		b.SetBytes(int64(len(buf)))
	})
}

func BenchmarkDecode(b *testing.B) {
	p := sample()
	b.Run("msgpack", func(b *testing.B) { benchDecode(b, Msgpack[product](), p) })
	b.Run("msgpack.Unmarshal-unchecked", func(b *testing.B) { // the same bytes without the check
		src := ok[[]byte](b)(Msgpack[product]().Append(nil, p))
		b.ReportAllocs()
		b.SetBytes(int64(len(src)))
		for b.Loop() {
			var v product
			if err := msgpack.Unmarshal(src, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) { benchDecode(b, JSON[product](), p) })
}

func benchDecode[V any](b *testing.B, c Codec[V], v V) {
	src := ok[[]byte](b)(c.Append(nil, v))
	b.ReportAllocs()
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		if _, err := c.Decode(src); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	list := make([]product, 50)
	for i := range list {
		list[i] = sample()
	}
	for name, src := range map[string][]byte{
		"product":      ok[[]byte](b)(Msgpack[product]().Append(nil, sample())),
		"products":     ok[[]byte](b)(Msgpack[[]product]().Append(nil, list)),
		"small-ints":   ok[[]byte](b)(Msgpack[[]int8]().Append(nil, make([]int8, 100_000))),
		"one-4KiB-bin": ok[[]byte](b)(Msgpack[[]byte]().Append(nil, make([]byte, 4096))),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				CheckMsgpack(src)
			}
		})
	}
}

func BenchmarkCompressed(b *testing.B) {
	text := bytes.Repeat([]byte(`{"sku":"0123456789","name":"a product of which many look alike","price":1999},`), 200)
	c := ok[Codec[[]byte]](b)(Compressed(Raw[[]byte](), Compression{}))
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(text)))
		var buf []byte
		for b.Loop() {
			buf, _ = c.Append(buf[:0], text)
		}
		b.ReportMetric(float64(len(text))/float64(len(buf)), "ratio")
	})
	b.Run("decode", func(b *testing.B) { benchDecode(b, c, text) })
}

func BenchmarkFrames(b *testing.B) {
	q, p := requests()[0], responses()[0]
	p.Value = make([]byte, 256)
	var buf []byte
	b.Run("request", func(b *testing.B) {
		b.ReportAllocs()
		var r Request
		for b.Loop() {
			buf = AppendRequest(buf[:0], &q)
			kind, id, body, _ := FrameKind(buf[FrameHeader:])
			if err := DecodeRequest(&r, kind, id, body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("response", func(b *testing.B) {
		b.ReportAllocs()
		var r Response
		for b.Loop() {
			buf = AppendResponse(buf[:0], &p)
			_, id, body, _ := FrameKind(buf[FrameHeader:])
			if err := DecodeResponse(&r, id, body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
