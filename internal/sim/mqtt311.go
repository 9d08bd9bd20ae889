package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// The few packets of MQTT 3.1.1 that a publisher needs.
const (
	typeConnack = 0x20
	typePublish = 0x30
	typePuback  = 0x40
	connectTry  = 10 * time.Second // how long CONNECT may take before the connection counts as failed
)

var disconnect = []byte{0xe0, 0} // constant bytes: never modified

// dialMQTT connects with a clean session and without keep-alive and waits for the CONNACK.
func dialMQTT(ctx context.Context, addr, client, user, password string) (net.Conn, error) {
	d := net.Dialer{Timeout: connectTry}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := handshake(conn, client, user, password); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func handshake(conn net.Conn, client, user, password string) error {
	if err := conn.SetDeadline(time.Now().Add(connectTry)); err != nil {
		return err
	}
	if _, err := conn.Write(appendConnect(nil, client, user, password)); err != nil {
		return err
	}
	var ack [4]byte
	if _, err := io.ReadFull(conn, ack[:]); err != nil {
		return fmt.Errorf("wait for CONNACK: %w", err)
	}
	if ack[0] != typeConnack || ack[3] != 0 {
		return fmt.Errorf("broker refused the connection with code %d", ack[3]) // [MQTT-3.2.2-5]
	}
	return conn.SetDeadline(time.Time{})
}

func appendConnect(b []byte, client, user, password string) []byte {
	flags := byte(0x02) // clean session
	body := appendString(nil, "MQTT")
	if user != "" {
		flags |= 0xc0
	}
	body = append(body, 4, flags, 0, 0) // protocol level 4 is 3.1.1; keep-alive 0 is none
	body = appendString(body, client)
	if user != "" {
		body = appendString(appendString(body, user), password)
	}
	b = appendLength(append(b, 0x10), len(body))
	return append(b, body...)
}

// appendPublish encodes a PUBLISH: QoS 1 with a packet id, QoS 0 when that is 0.
func appendPublish(b, topic, payload []byte, id uint16) []byte {
	n, head := 2+len(topic)+len(payload), byte(typePublish)
	if id != 0 {
		n, head = n+2, head|1<<1
	}
	b = appendLength(append(b, head), n)
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	b = append(b, topic...)
	if id != 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return append(b, payload...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func appendLength(b []byte, n int) []byte {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// readAcks reads PUBACKs until the connection ends, handing over each read's worth at once. Anything else that a broker
// might send to a client without subscriptions is an error.
func readAcks(r io.Reader, take func(ids []uint16)) error {
	buf := make([]byte, 16<<10)
	ids := make([]uint16, 0, len(buf)/4)
	have := 0
	for {
		n, err := r.Read(buf[have:])
		have += n
		ids = ids[:0]
		used := 0
		for ; have-used >= 4; used += 4 {
			p := buf[used : used+4]
			if p[0] != typePuback || p[1] != 2 {
				return fmt.Errorf("broker sent packet type %#02x, want PUBACK", p[0])
			}
			ids = append(ids, binary.BigEndian.Uint16(p[2:]))
		}
		have = copy(buf, buf[used:have])
		take(ids)
		if err != nil {
			return err
		}
	}
}
