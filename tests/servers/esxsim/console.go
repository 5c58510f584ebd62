package main

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Consoles as a host has them: AcquireTicket("webmks") answers a ticket that opens wss://host/ticket/T once, within some
// seconds, while its machine runs; there an RFB server greets, shows a small black screen and ends with the machine. Its
// first message comes in two fragments with a ping between, and it wants every frame of the client masked. What a real
// host says beyond plain RFB is not here.
type consoles struct {
	mu         sync.Mutex
	live       map[string]ticket
	seconds    int
	host       string // what tickets name, the address that is listened on if empty
	thumbprint string // what tickets tell, the certificate's own if empty
	own        string
	opened     int
}

type ticket struct {
	vm   types.ManagedObjectReference
	ends time.Time
}

const (
	screenWidth  = 64
	screenHeight = 48
)

// console answers AcquireTicket. It says whether it answered.
func (f *front) console(w http.ResponseWriter, m *simulator.Method) bool {
	if m.Name != "AcquireTicket" {
		return false
	}
	vm, ok := simulator.Map.Get(m.This).(*simulator.VirtualMachine)
	switch {
	case !ok:
		soapFault(w, m.This, "ManagedObjectNotFound")
		return true
	case m.Body.(*types.AcquireTicket).TicketType != string(types.VirtualMachineTicketTypeWebmks):
		soapFault(w, m.This, "NotSupported")
		return true
	case vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn:
		soapFault(w, m.This, "InvalidState")
		return true
	}
	secret := make([]byte, 8)
	_, err := rand.Read(secret)
	check(err)
	at := simulator.Map.SessionManager().ServiceHostName
	name, port, err := net.SplitHostPort(at)
	check(err)
	c := f.consoles
	c.mu.Lock()
	defer c.mu.Unlock()
	made := hex.EncodeToString(secret)
	c.live[made] = ticket{m.This, time.Now().Add(time.Duration(c.seconds) * time.Second)}
	if c.host != "" {
		name = c.host
	}
	thumbprint := c.thumbprint
	if thumbprint == "" {
		thumbprint = c.own
	}
	reply(w, m.Name, fmt.Sprintf(`<returnval><ticket>%s</ticket><cfgFile>[x] x.vmx</cfgFile><host>%s</host><port>%s</port>`+
		`<sslThumbprint>%s</sslThumbprint></returnval>`, made, name, port, thumbprint))
	return true
}

// order sets what tickets are like from now on: /ctl/ticket?seconds=N&host=H&thumbprint=T.
func (c *consoles) order(q url.Values) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Sscan(q.Get("seconds"), &c.seconds)
	c.host, c.thumbprint = q.Get("host"), q.Get("thumbprint")
}

// take uses a ticket up.
func (c *consoles) take(name string) (types.ManagedObjectReference, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.live[name]
	delete(c.live, name)
	if ok = ok && time.Now().Before(found.ends); ok {
		c.opened++
	}
	return found.vm, ok
}

func (f *front) ticket(w http.ResponseWriter, r *http.Request) {
	vm, ok := f.consoles.take(strings.TrimPrefix(r.URL.Path, "/ticket/"))
	if !ok || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || r.Header.Get("Sec-WebSocket-Protocol") != "binary" {
		http.NotFound(w, r)
		return
	}
	conn, both, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: binary\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	s := &screen{conn: conn, in: both.Reader}
	go s.watch(vm)
	_ = s.serve()
}

// screen is an RFB server on a WebSocket.
type screen struct {
	conn net.Conn
	in   *bufio.Reader
	mu   sync.Mutex
	rest []byte // of the client's newest message
}

// watch ends the screen with its machine.
func (s *screen) watch(ref types.ManagedObjectReference) {
	for {
		vm, ok := simulator.Map.Get(ref).(*simulator.VirtualMachine)
		if !ok || vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
			_ = s.frame(0x88, []byte{3, 232})
			s.conn.Close()
			return
		}
		if _, err := s.conn.Write(nil); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// frame sends one frame; first is its first byte.
func (s *screen) frame(first byte, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	head := []byte{first, byte(len(body))}
	if len(body) > 125 {
		head = binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(len(body)))
	}
	_, err := s.conn.Write(append(head, body...))
	return err
}

func (s *screen) say(body []byte) error { return s.frame(0x82, body) }

// read takes so many bytes of the client's binary messages, and answers its pings and closes.
func (s *screen) read(n int) ([]byte, error) {
	for len(s.rest) < n {
		head := make([]byte, 2)
		if _, err := io.ReadFull(s.in, head); err != nil {
			return nil, err
		}
		length := int(head[1] & 0x7f)
		if length == 126 {
			var long uint16
			if err := binary.Read(s.in, binary.BigEndian, &long); err != nil {
				return nil, err
			}
			length = int(long)
		}
		if head[1]&0x80 == 0 || length == 127 {
			return nil, io.ErrUnexpectedEOF
		}
		body := make([]byte, 4+length)
		if _, err := io.ReadFull(s.in, body); err != nil {
			return nil, err
		}
		mask, body := body[:4], body[4:]
		for i := range body {
			body[i] ^= mask[i%4]
		}
		switch head[0] & 0x0f {
		case 0, 2:
			s.rest = append(s.rest, body...)
		case 8:
			_ = s.frame(0x88, body)
			return nil, io.EOF
		}
	}
	found := s.rest[:n]
	s.rest = s.rest[n:]
	return found, nil
}

func (s *screen) serve() error {
	_ = s.frame(0x02, []byte("RFB 00"))
	_ = s.frame(0x89, []byte("there?"))
	if err := s.frame(0x80, []byte("3.008\n")); err != nil {
		return err
	}
	for _, step := range []struct {
		heard int
		said  []byte
	}{{12, []byte{1, 1}}, {1, []byte{0, 0, 0, 0}}, {1, s.begin()}} {
		if _, err := s.read(step.heard); err != nil {
			return err
		}
		if err := s.say(step.said); err != nil {
			return err
		}
	}
	for {
		kind, err := s.read(1)
		if err != nil {
			return err
		}
		lengths := map[byte]int{0: 19, 3: 9, 4: 7, 5: 5}
		switch kind[0] {
		case 2:
			head, err := s.read(3)
			if err != nil {
				return err
			}
			_, err = s.read(4 * int(binary.BigEndian.Uint16(head[1:])))
			if err != nil {
				return err
			}
		case 0, 3, 4, 5:
			body, err := s.read(lengths[kind[0]])
			if err != nil {
				return err
			}
			if kind[0] == 3 {
				err = s.update(body)
			}
			if err != nil {
				return err
			}
		default:
			return io.ErrUnexpectedEOF
		}
	}
}

func (s *screen) begin() []byte {
	said := binary.BigEndian.AppendUint16(nil, screenWidth)
	said = binary.BigEndian.AppendUint16(said, screenHeight)
	said = append(said, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0)
	title := "a simulated console"
	return append(binary.BigEndian.AppendUint32(said, uint32(len(title))), title...)
}

func (s *screen) update(asked []byte) error {
	said := append([]byte{0, 0, 0, 1}, asked[1:9]...)
	said = append(said, 0, 0, 0, 0)
	pixels := int(binary.BigEndian.Uint16(asked[5:])) * int(binary.BigEndian.Uint16(asked[7:]))
	if pixels > screenWidth*screenHeight {
		return io.ErrUnexpectedEOF
	}
	return s.say(append(said, make([]byte, 4*pixels)...))
}
