package main

import (
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	cookieName = "vmware_soap_session"
	head       = `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>`
	tail       = `</soapenv:Body></soapenv:Envelope>`
)

// What a real host answers before login.
var open = map[string]bool{"RetrieveServiceContent": true, "Login": true}

// fault is an order: the next n calls of a method go wrong.
type fault struct {
	name string // a vSphere fault ("task:" before it: in the task), or: "http" (503), "drop" (done, answer lost), "hang"
	n    int
	skip int // so many calls go well before
}

// front stands before the simulator. Control, without login: GET /ctl/fault?method=M&fault=F&n=N,
// /ctl/delay?method=M&ms=N (* is every task), /ctl/expire[?empty=1], /ctl/expireAt?method=M, /ctl/lease?seconds=N,
// /ctl/tools?on=1, /ctl/ticket?seconds=N&host=H&thumbprint=T, /ctl/calls, /ctl/sent.
type front struct {
	inner    http.Handler
	user     string
	password string
	mu       sync.Mutex
	tools    bool   // guests listen
	endsAt   string // the method at whose next call all sessions end
	sessions map[string]bool
	empty    bool // a dead session reads nothing, as old ESXi; else objects with a missingSet, as vCenter
	faults   map[string]*fault
	delays   map[string]time.Duration
	calls    map[string]int
	sent     map[string]int      // bytes of answers, by method
	pages    map[string][]string // what is left of bulk reads, by token
	tokens   int
	leases   *leases
	consoles *consoles
}

func newFront(inner http.Handler, user, password string, own tls.Certificate) *front {
	return &front{inner: inner, user: user, password: password, sessions: map[string]bool{}, faults: map[string]*fault{},
		delays: map[string]time.Duration{}, calls: map[string]int{}, sent: map[string]int{}, pages: map[string][]string{}, leases: &leases{live: map[string]*lease{}, seconds: 300},
		consoles: &consoles{live: map[string]ticket{}, seconds: 30, own: fmt.Sprintf("%X", sha1.Sum(own.Certificate[0]))}}
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case (path == "/sdk" || path == "/sdk/vimService") && r.Method == http.MethodPost:
		f.sdk(w, r)
	case strings.HasPrefix(path, "/ctl/"):
		f.control(w, r)
	case strings.HasPrefix(path, "/folder/"):
		f.folder(w, r)
	case strings.HasPrefix(path, "/nfc/"):
		f.files(w, r)
	case strings.HasPrefix(path, "/ticket/"):
		f.ticket(w, r)
	default:
		f.inner.ServeHTTP(w, r)
	}
}

func (f *front) control(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := r.URL.Query()
	switch r.URL.Path {
	case "/ctl/fault":
		n, _ := strconv.Atoi(q.Get("n"))
		skip, _ := strconv.Atoi(q.Get("skip"))
		f.faults[q.Get("method")] = &fault{q.Get("fault"), n, skip}
	case "/ctl/delay":
		ms, _ := strconv.Atoi(q.Get("ms"))
		f.delays[q.Get("method")] = time.Duration(ms) * time.Millisecond
	case "/ctl/expire":
		f.sessions = map[string]bool{}
		f.empty = q.Get("empty") != ""
	case "/ctl/expireAt":
		f.endsAt = q.Get("method")
	case "/ctl/lease":
		f.leases.seconds, _ = strconv.Atoi(q.Get("seconds"))
	case "/ctl/tools":
		f.tools = q.Get("on") != ""
	case "/ctl/ticket":
		f.consoles.order(q)
	case "/ctl/calls":
		_ = json.NewEncoder(w).Encode(f.calls)
		f.calls = map[string]int{}
	case "/ctl/sent":
		_ = json.NewEncoder(w).Encode(f.sent)
		f.sent = map[string]int{}
	default:
		http.NotFound(w, r)
	}
}

// counted adds up the bytes of an answer.
type counted struct {
	http.ResponseWriter
	f      *front
	method string
}

func (c counted) Write(b []byte) (int, error) {
	c.f.mu.Lock()
	c.f.sent[c.method] += len(b)
	c.f.mu.Unlock()
	return c.ResponseWriter.Write(b)
}

// take counts the call and answers the fault that was ordered for it, and its delay.
func (f *front) take(method string) (string, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[method]++
	if f.endsAt == method {
		f.sessions, f.endsAt = map[string]bool{}, ""
	}
	delay, known := f.delays[method]
	if !known && strings.HasSuffix(method, "_Task") {
		delay = f.delays["*"]
	}
	if o := f.faults[method]; o != nil && o.skip > 0 {
		o.skip--
	} else if o != nil && o.n > 0 {
		o.n--
		return o.name, delay
	}
	return "", delay
}

func (f *front) sdk(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	m, err := simulator.UnmarshalBody(types.TypeFunc(), body)
	if err != nil {
		f.pass(w, r, body)
		return
	}
	ordered, delay := f.take(m.Name)
	w = counted{w, f, m.Name}
	task := strings.HasSuffix(m.Name, "_Task")
	if !task {
		time.Sleep(delay)
	}
	if ordered != "" && !open[m.Name] && !f.alive(r) {
		ordered = "" // who is nobody meets no fault but that
	}
	inTask := strings.TrimPrefix(ordered, "task:")
	if inTask == ordered {
		inTask = ""
	} else {
		ordered = ""
	}
	switch ordered {
	case "":
	case "http":
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case "drop":
		if task {
			f.later(httptest.NewRecorder(), r, m, body, delay, "")
		} else {
			f.answer(httptest.NewRecorder(), r, m, body)
		}
		panic(http.ErrAbortHandler)
	case "hang":
		<-r.Context().Done()
		return
	default:
		soapFault(w, m.This, ordered)
		return
	}
	if !f.alive(r) {
		r.Header.Del("Cookie") // dead here, so dead inside too
		if !open[m.Name] {
			f.dead(w, r, m, body)
			return
		}
	}
	switch {
	case blocked[m.Name] && f.leases.holds(m.This):
		soapFault(w, m.This, "TaskInProgress")
	case task:
		f.later(w, r, m, body, delay, inTask)
	default:
		f.answer(w, r, m, body)
	}
}

// answer carries out a call that is no task: what the simulator leaves out is ours.
func (f *front) answer(w http.ResponseWriter, r *http.Request, m *simulator.Method, body []byte) {
	if !f.guest(w, m) && !f.console(w, m) && !f.nfc(w, r, m, body) && !f.paged(w, r, m, body) {
		f.pass(w, r, body)
		f.remember(w)
	}
}

// alive says whether the request carries a session that has not ended.
func (f *front) alive(r *http.Request) bool {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sessions[strings.Trim(c.Value, `"`)]
}

// remember notes the session that a login made.
func (f *front) remember(w http.ResponseWriter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range w.Header()["Set-Cookie"] {
		if p := strings.SplitN(strings.SplitN(c, ";", 2)[0], "=", 2); p[0] == cookieName {
			f.sessions[strings.Trim(p[1], `"`)] = true
		}
	}
}

// dead answers a call whose session has ended, as hosts do.
func (f *front) dead(w http.ResponseWriter, r *http.Request, m *simulator.Method, body []byte) {
	switch {
	case m.Name == "Fetch" && m.This.Type == "SessionManager": // currentSession is unset, not refused
		fmt.Fprint(w, head+`<FetchResponse xmlns="urn:vim25"></FetchResponse>`+tail)
	case m.Name == "RetrievePropertiesEx" && f.empty:
		fmt.Fprint(w, head+`<RetrievePropertiesExResponse xmlns="urn:vim25"></RetrievePropertiesExResponse>`+tail)
	case m.Name == "RetrievePropertiesEx":
		f.pass(w, r, body) // the simulator says NotAuthenticated in the missingSet
	default:
		soapFault(w, m.This, "NotAuthenticated")
	}
}

// pass hands the call to the simulator, which panics on some requests where a host answers with a fault.
func (f *front) pass(w http.ResponseWriter, r *http.Request, body []byte) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			panic(p)
		} else if p != nil && bytes.Contains(body, []byte("<Fetch ")) { // a property that is unset
			fmt.Fprint(w, head+`<FetchResponse xmlns="urn:vim25"></FetchResponse>`+tail)
		} else if p != nil && bytes.Contains(body, []byte("<FindByUuid ")) && r.Context().Err() == nil {
			time.Sleep(time.Millisecond) // it met a machine that is being made, which no host shows yet
			f.pass(w, r, body)
		} else if p != nil {
			soapFault(w, types.ManagedObjectReference{Type: "Folder", Value: "none"}, "SystemError")
		}
	}()
	again := r.Clone(r.Context())
	again.Body = io.NopCloser(bytes.NewReader(body))
	f.inner.ServeHTTP(w, again)
}

// soapFault answers with a vSphere fault; some have fields without which a client cannot read them.
func soapFault(w http.ResponseWriter, obj types.ManagedObjectReference, name string) {
	inner := ""
	switch name {
	case "NotAuthenticated", "NoPermission":
		inner = fmt.Sprintf(`<object type="%s">%s</object><privilegeId>System.View</privilegeId>`, obj.Type, obj.Value)
	case "InvalidPowerState":
		inner = `<requestedState>poweredOn</requestedState><existingState>poweredOff</existingState>`
	case "TaskInProgress":
		inner = `<task type="Task">task-0</task>`
	case "SystemError":
		inner = `<reason>panic</reason>`
	case "ManagedObjectNotFound":
		inner = fmt.Sprintf(`<obj type="%s">%s</obj>`, obj.Type, obj.Value)
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, head+`<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>ordered</faultstring><detail>`+
		`<%sFault xmlns="urn:vim25" xsi:type="%s">%s</%sFault></detail></soapenv:Fault>`+tail, name, name, inner, name)
}
