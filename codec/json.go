package codec

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// JSON returns a codec that uses encoding/json. It is slower than Msgpack, and other programs can read its
// output. encoding/json bounds the depth of nesting and rejects trailing data. Unlike Msgpack it does not
// bound memory: "{}" may stand for a large struct. Strings that are not valid UTF-8 do not survive a round
// trip.
func JSON[V any]() Codec[V] {
	c := &jsonCodec[V]{finisher: finisher{shapes: &shapes{tag: "json"}}}
	c.finishes = c.finisher.needs(reflect.TypeFor[V]())
	return c
}

type jsonCodec[V any] struct {
	finishes bool // whether values need a finisher
	finisher finisher
}

func (*jsonCodec[V]) Name() string { return "json" }

func (*jsonCodec[V]) Append(dst []byte, v V) ([]byte, error) {
	b, err := json.Marshal(&v) // by address: V may have its methods on *V
	if err != nil {
		return dst, err
	}
	return append(dst, b...), nil
}

func (c *jsonCodec[V]) Decode(src []byte) (v V, err error) {
	if err := json.Unmarshal(src, &v); err != nil {
		var zero V
		return zero, fmt.Errorf("%w: %w", ErrValue, err)
	}
	if c.finishes {
		c.finisher.finish(reflect.ValueOf(&v).Elem())
	}
	return v, nil
}
