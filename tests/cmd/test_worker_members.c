/* A worker and those who hold the key, but do not say what a head says, or whose job or ring makes no sense:
 * they are told so, or shown out, and the right head is served afterwards. */
#include "net/probe.h"
#include "src/run/job.h"
#include "tests/cmd/hostile.h"

TestSuite(members, .init = setup, .fini = teardown, .timeout = 120);

Test(members, first_words_that_are_no_greeting)
{
    static const struct {
        const char *name;
        frame f;
        const char *text, *says;
    } cases[] = {
        {"an empty message", {.type = FRAME_CONTROL}, "", "no greeting"},
        {"no JSON", {.type = FRAME_CONTROL}, "{\"type\":", "no greeting"},
        {"another message", {.type = FRAME_CONTROL}, "{\"type\":\"job\"}", "no greeting"},
        {"no version", {.type = FRAME_CONTROL}, "{\"type\":\"hello\"}", "no greeting"},
        {"a version that is no text",
         {.type = FRAME_CONTROL},
         "{\"type\":\"hello\",\"prima\":7}",
         "no greeting"},
        {"another version",
         {.type = FRAME_CONTROL},
         "{\"type\":\"hello\",\"prima\":\"0.0\"}",
         "the head runs prima 0.0 and this worker"},
        {"hidden states", {.type = FRAME_PASS}, "xxxx", "a frame of type 8 is not expected here"},
        {"hidden states to measure the link with", {.type = FRAME_FILL}, "xxxx", "is not expected here"},
        {"a data connection without a run",
         {.type = FRAME_JOIN},
         "0123456789abcdef0123456789abcdef",
         "a data connection of another run"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char last[512];
        size_t before = warnings(last);
        channel *c = enter();
        send_text(c, cases[i].f.type, cases[i].text);
        cr_expect(channel_is_shut_within(c, AT_ONCE_S), "%s", cases[i].name);
        channel_close(c);
        expect_one_line(before, cases[i].says, cases[i].name);
    }
    serves_the_right_head();
}

Test(members, frames_that_are_none)
{
    static const struct {
        const char *name, *says;
        size_t at; /* this byte of a good header ... */
        uint8_t value;
    } cases[] = {
        {"another magic", "not a prima frame", 0, 'p'},
        {"another protocol", "version 2 of the protocol", 4, 2},
        {"an unknown type", "a frame of type 255", 6, 255},
        {"a long one", "at most 4096 are allowed", 15, 0x7f}, /* 2 GiB */
        {"a reserved byte", "malformed frame: byte 60", 60, 1},
        {"an element type", "malformed frame", 50, 9},
        {"a matrix", "malformed frame", 40, 1},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const frame f = {.type = FRAME_CONTROL, .extra = 0, .payload_bytes = 0};
        uint8_t header[FRAME_HEADER_BYTES];
        char last[512];
        size_t before = warnings(last);
        channel *c = enter();
        frame_encode(header, &f);
        header[cases[i].at] = cases[i].value;
        must(channel_write(c, header, sizeof header, sock_deadline(2), &err));
        cr_expect(channel_is_shut_within(c, AT_ONCE_S), "%s", cases[i].name);
        channel_close(c);
        expect_one_line(before, cases[i].says, cases[i].name);
    }
    serves_the_right_head();
}

Test(members, silence_of_a_member)
{
    char last[512];
    size_t before = warnings(last);
    channel *c = enter();

    cr_expect(channel_is_shut_within(c, GREETING_S + 2));
    channel_close(c);
    expect_one_line(before, "no answer in time", "silence");
    serves_the_right_head();
}

/* --- a head of the test's own ------------------------------------------------------------------------------
 */
static json_t *expect_message(control *k, const char *type)
{
    for (;;) {
        json_t *message;
        must(control_recv(k, &message, &err));
        if (control_is(message, type)) return message;
        if (control_is(message, "need")) { /* its copy of the model is compared with ours */
            must(ship_answer(source, k, message, &err));
            json_decref(message);
            continue;
        }
        char *line = json_line(message);
        cr_assert(control_is(message, "beat"), "expected %s, found %s", type, line);
        free(line);
        json_decref(message);
    }
}

static control *greet_once(json_t **answer)
{
    control *k;

    must(control_new(&k, enter(), 10, &err));
    must(control_send(k, json_pack("{s:s, s:s}", "type", "hello", "prima", version), &err));
    must(control_recv(k, answer, &err));
    return k;
}

static bool is_busy(const json_t *answer)
{
    const char *text = json_string_value(json_object_get(answer, "message"));
    return text && strstr(text, "serves another run");
}

/* Let in, at once or, where the last head has gone without a word, when that is noticed. */
static control *greet(bool at_once)
{
    json_t *answer;
    control *k = greet_once(&answer);

    for (int i = 0; i < 100 && !at_once && is_busy(answer); i++) {
        json_decref(answer);
        control_close(k);
        sleep_ms(100);
        k = greet_once(&answer);
    }
    cr_assert(control_is(answer, "hello"), "%s", json_string_value(json_object_get(answer, "message")));
    json_decref(answer);
    return k;
}

static const job_sizes sizes = {.token = "0123456789abcdef0123456789abcdef",
                                .max_tokens = 8,
                                .merge_tokens = 8,
                                .max_out = 2,
                                .n_pages = 16,
                                .elem = FRAME_F32,
                                .heartbeat_s = 0.1,
                                .peer_s = 5,
                                .connect_s = 10};

static void send_job(control *k, uint32_t n_layers, const job_sizes *s)
{
    size_t n;
    char *text = make_plan(n_layers, &n);

    must(control_send(k, job_to_json(text, n, WORKER, s), &err));
    free(text);
}

Test(members, a_second_head_while_it_is_busy)
{
    char last[512];
    control *k = greet(false);
    size_t before = warnings(last);

    for (int i = 0; i < 3; i++) {
        control *second;
        json_t *answer;
        must(control_new(&second, enter(), 5, &err));
        must(control_send(second, json_pack("{s:s, s:s}", "type", "hello", "prima", version), &err));
        answer = expect_message(second, "fail");
        cr_expect(strstr(json_string_value(json_object_get(answer, "message")), "serves another run"));
        cr_expect_eq(json_integer_value(json_object_get(answer, "code")), PR_ERESOURCE);
        json_decref(answer);
        cr_expect_neq(control_recv(second, &answer, &err), PR_OK, "it is shut");
        control_close(second);
    }
    expect_one_line(before + 2, "serves another run", "three heads");
    send_job(k, m.hp.n_layers, &sizes); /* the first is none the wiser */
    json_decref(expect_message(k, "ready"));
    must(control_send(k, json_pack("{s:s}", "type", "stop"), &err));
    json_decref(expect_message(k, "bye"));
    control_close(k);
    serves_the_right_head();
}

/* Two runs in a row, as a script has them: the next head comes as soon as the last one has been told "bye".
 */
Test(members, a_head_that_comes_at_once_after_the_last)
{
    for (int i = 0; i < 20; i++) {
        control *k = greet(i > 0);
        send_job(k, m.hp.n_layers, &sizes);
        json_decref(expect_message(k, "ready"));
        must(control_send(k, json_pack("{s:s}", "type", "stop"), &err));
        json_decref(expect_message(k, "bye"));
        control_close(k);
    }
    serves_the_right_head();
}

static void join_as(uint16_t rank, uint64_t session, const char *token, channel **out)
{
    uint8_t room[FRAME_HEADER_BYTES + 64];
    uint32_t n = (uint32_t)strlen(token);
    frame f = {.type = FRAME_JOIN, .rank = rank, .session = session, .extra = n, .payload_bytes = n};

    *out = enter();
    memcpy(room + FRAME_HEADER_BYTES, token, n);
    must(frame_send(*out, room, &f, sock_deadline(2), &err));
}

/* The ring of the head of this test: it comes from us and goes back to us. */
Test(members, data_connections_that_do_not_belong_to_the_ring)
{
    static const struct {
        uint16_t rank;
        const char *token;
    } wrong[] = {
        {0, "0123456789abcdef0123456789abcdeF"},
        {0, "0123456789abcdef0123456789abcde"},
        {0, ""},
        {0, "0123456789abcdef0123456789abcdef0"},
        {1, "0123456789abcdef0123456789abcdef"},
        {65535, "0123456789abcdef0123456789abcdef"},
    };
    const frame_limits fl = {64, FRAME_BIT(FRAME_JOIN) | FRAME_BIT(FRAME_WALK)};
    const sock_addr any = {.host = "127.0.0.1"};
    control *k = greet(false);
    channel *c, *old, *from_it;
    sock_listener l;
    uint8_t payload[64];
    char last[512];
    json_t *message;
    frame f;
    sock s;

    send_job(k, m.hp.n_layers, &sizes);
    json_decref(expect_message(k, "ready"));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        size_t before = warnings(last);
        join_as(wrong[i].rank, 5, wrong[i].token, &c);
        cr_expect(channel_is_shut_within(c, AT_ONCE_S), "case %zu", i);
        channel_close(c);
        expect_one_line(before, "a data connection of another run", "a wrong data connection");
    }
    must(sock_listen(&l, &any, &no_options, &err));
    join_as(HEAD, 4, sizes.token, &old); /* of a ring that has not come about */
    must(
        control_send(k, json_pack("{s:s, s:i, s:s}", "type", "ring", "session", 5, "next", l.address), &err));
    must(sock_accept(&s, &l, sock_deadline(5), &err));
    must(channel_open(&from_it, &s, CHANNEL_SERVER, &sec, sock_deadline(5), &err));
    must(frame_recv(from_it, &f, payload, &fl, sock_deadline(5), &err));
    cr_expect(f.type == FRAME_JOIN && f.rank == WORKER && f.session == 5 && f.payload_bytes == 32 &&
              !memcmp(payload, sizes.token, 32));
    sleep_ms(200);
    join_as(HEAD, 5, sizes.token, &c);
    message = expect_message(k, "ringed");
    cr_expect_eq(json_integer_value(json_object_get(message, "session")), 5);
    json_decref(message);
    cr_expect(channel_is_shut_within(old, AT_ONCE_S));

    uint8_t room[FRAME_HEADER_BYTES + 64] = {0}; /* a frame of the ring before: the ring is out of step */
    f = (frame){.type = FRAME_WALK, .session = 4, .extra = 32, .payload_bytes = 32};
    must(frame_send(c, room, &f, sock_deadline(2), &err));
    message = expect_message(k, "fail");
    cr_expect_eq(json_integer_value(json_object_get(message, "session")), 5);
    cr_expect(strstr(json_string_value(json_object_get(message, "message")), "not come the way of the plan"));
    json_decref(message);
    channel_close(old);
    channel_close(c);
    channel_close(from_it);
    sock_listener_close(&l);
    control_close(k); /* and goes away without a word */
    serves_the_right_head();
}

Test(members, jobs_that_make_no_sense)
{
    job_sizes large = sizes;
    struct {
        const char *name;
        json_t *message;
    } cases[6];
    size_t n;
    char *text = make_plan(m.hp.n_layers, &n);

    large.merge_tokens = large.max_tokens = 65536;
    large.n_pages = 1 << 24;
    cases[0].message = json_pack("{s:s}", "type", "job");
    cases[1].message = job_to_json(text, n, HEAD, &sizes); /* it is no head */
    cases[2].message = job_to_json(text, n, 17, &sizes);
    cases[3].message = job_to_json(text, n / 2, WORKER, &sizes);
    cases[4].message = job_to_json(text, n, WORKER, &large); /* more memory than the plan allows */
    cases[5].message = json_pack("{s:s}", "type", "nonsense");
    free(text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        control *k = greet(false);
        json_t *answer;
        must(control_send(k, cases[i].message, &err));
        answer = expect_message(k, "fail");
        cr_expect_gt(strlen(json_string_value(json_object_get(answer, "message"))), 10u, "case %zu", i);
        json_decref(answer);
        control_close(k);
        cr_assert_eq(waitpid(worker, NULL, WNOHANG), 0, "the worker has ended in case %zu", i);
    }
    serves_the_right_head();
}

/* It beats itself all the while, and hears nothing for as long as the job says. */
Test(members, a_head_that_falls_silent)
{
    job_sizes impatient = sizes;
    control *k = greet(false);
    uint64_t start;
    json_t *message;

    impatient.peer_s = 1;
    send_job(k, m.hp.n_layers, &impatient);
    json_decref(expect_message(k, "ready"));
    start = clock_ns();
    while (!control_recv(k, &message, &err)) {
        cr_expect(control_is(message, "beat"));
        json_decref(message);
    }
    cr_expect(clock_ms_since(start) > 800 && clock_ms_since(start) < 4500, "%g ms", clock_ms_since(start));
    control_close(k);
    serves_the_right_head();
}

/* The model's header is the plan's, but the plan has more layers than the model. */
Test(members, a_plan_with_more_layers_than_the_model)
{
    control *k = greet(false);

    send_job(k, m.hp.n_layers + 3, &sizes);
    json_t *answer = expect_message(k, "fail");
    cr_expect_eq(json_integer_value(json_object_get(answer, "code")), PR_EMISMATCH);
    json_decref(answer);
    control_close(k);
    serves_the_right_head();
}

/* --- a link is measured ----------------------------------------------------------------------------------
 */
/* Whoever holds the key may, one at a time. */
Test(members, members_measure_the_link)
{
    static const probe_effort little = {.echoes_s = 0.05, .bursts_s = 0.2, .there_only = true};
    channel *c = enter(), *second = enter();
    probe_figures got;
    char last[512];
    size_t before = warnings(last);

    send_text(c, FRAME_ECHO, "");
    sleep_ms(100);
    cr_expect_neq(probe_ask(&got, second, &little, &err), PR_OK, "two at a time");
    channel_close(second);
    expect_one_line(before, "another link is being measured", "a second one");
    channel_close(c);
    sleep_ms(100);
    expect_one_line(before + 1, "closed the connection", "gone in the middle");
    c = enter();
    must(probe_ask(&got, c, &little, &err));
    cr_expect(got.rtt_ms > 0 && got.rtt_ms < 500 && got.out_bytes_per_s > 1e6 && got.in_bytes_per_s == 0,
              "%g ms, %g bytes/s", got.rtt_ms, got.out_bytes_per_s);
    channel_close(c);
    c = enter(); /* and the worker's end does not wait for one that is silent */
    send_text(c, FRAME_ECHO, "");
    serves_the_right_head();
    uint64_t start = clock_ns();
    kill(worker, SIGTERM);
    waitpid(worker, NULL, 0);
    worker = 0;
    cr_expect_lt(clock_ms_since(start), AT_ONCE_S * 1e3);
    channel_close(c);
}
