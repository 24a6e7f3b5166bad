package codec

import (
	"encoding/json"
	"fmt"
)

// JSON returns a codec that uses encoding/json: slower than Msgpack, readable by
// anything. encoding/json bounds the depth of nesting and refuses what follows the value.
// It does not bound memory as Msgpack does: "{}" may stand for a large struct. Strings
// that are no valid UTF-8 do not survive.
func JSON[V any]() Codec[V] { return jsonCodec[V]{} }

type jsonCodec[V any] struct{}

func (jsonCodec[V]) Name() string { return "json" }

func (jsonCodec[V]) Append(dst []byte, v V) ([]byte, error) {
	b, err := json.Marshal(&v) // by address: V may have its methods on *V
	if err != nil {
		return dst, err
	}
	return append(dst, b...), nil
}

func (jsonCodec[V]) Decode(src []byte) (v V, err error) {
	if err := json.Unmarshal(src, &v); err != nil {
		var zero V
		return zero, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return v, nil
}
