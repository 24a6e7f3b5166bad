package codec_test

import (
	"errors"
	"fmt"

	"github.com/weircache/weir/codec"
)

type Product struct {
	SKU   string
	Cents int
	Tags  []string
}

func ExampleMsgpack() {
	c := codec.Msgpack[Product]()
	b, err := c.Append(nil, Product{SKU: "sku-1", Cents: 1999, Tags: []string{"new"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := c.Decode(b)
	fmt.Println(len(b), p, err)

	_, err = c.Decode([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}) // claims that 4 billion elements follow
	fmt.Println(errors.Is(err, codec.ErrValue))
	// Output:
	// 15 {sku-1 1999 [new]} <nil>
	// true
}

func ExampleCompressed() {
	c, err := codec.Compressed(codec.Raw[string](), codec.Compression{Threshold: 64})
	if err != nil {
		fmt.Println(err)
		return
	}
	long := fmt.Sprintf("%01000d", 7)
	b, err := c.Append(nil, long)
	fmt.Println(c.Name(), len(long), len(b) < 100, err)
	s, err := c.Decode(b)
	fmt.Println(s == long, err)
	// Output:
	// s2(raw) 1000 true <nil>
	// true <nil>
}

func ExampleSchema() {
	fmt.Println(codec.Schema[Product]())
	// Output: {SKU string;Cents int;Tags []string;}
}

func ExampleAppendRequest() {
	get := codec.Request{Kind: codec.KindGet, ID: 1, Namespace: []byte("products"), Key: []byte("sku-1")}
	frame := codec.AppendRequest(nil, &get)

	n, err := codec.FrameLength(frame, 1<<20) // before n bytes are read
	if err != nil {
		fmt.Println(err)
		return
	}
	kind, id, body, err := codec.FrameKind(frame[codec.FrameHeader : codec.FrameHeader+n])
	if err != nil {
		fmt.Println(err)
		return
	}
	var got codec.Request
	err = codec.DecodeRequest(&got, kind, id, body)
	fmt.Printf("%s %s %v\n", got.Namespace, got.Key, err)
	// Output: products sku-1 <nil>
}
