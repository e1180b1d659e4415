/* Rotation, acknowledgement, job leases and the retirement gate on many nodes.
 *
 * The database is one place where a transaction happens at once or not at all: a `d_step`.
 * Everything else is somebody's memory, which may be old: notifications are lost or late, a
 * node stops between any two steps, for any time, or loses its memory. A step that nobody
 * is forced to take models all of these.
 *
 * Time is one assumption: a node stops using its lease by its own clock before the database
 * takes the lease from it.
 *
 * -DBREAK_... breaks one rule; then the check must fail (docs/models/check does it). */

#define NODES    3
#define WORKERS  2      /* nodes 0 and 1 also work on the job */
#define VERSIONS 3      /* two rotations */
#define ROWS     2
#ifndef WRITES
#define WRITES   1      /* by applications */
#endif
#ifndef TAKES
#define TAKES    2      /* of the job's lease */
#endif

/* --- the database --- */

byte newest = 1;              /* versions 1 to newest exist */
byte primary = 1;             /* the one that protects */
byte epoch = 1;               /* grows with each change that nodes must know */
byte promoted = 1;            /* the epoch in which primary became it */
byte destroyed = 0;           /* versions 1 to destroyed are gone */
bool member[NODES] = true;    /* has a lease, as far as the database knows */
byte acknowledged[NODES] = 1; /* the epoch a member serves by */

/* The job that rewraps. Rotation goes on meanwhile: the job keeps its own target. */
byte job_target = 0;          /* 0: no job */
byte job_token = 0;           /* grows each time the lease is taken, over all jobs */
byte cursor = 0;
byte effects[ROWS];           /* how often each step of the job took effect */

/* --- applications --- */

byte row_version[ROWS] = 1;
bit row_value[ROWS] = 0;
bit written[ROWS] = 0;        /* what the newest acknowledged write left */
byte writes = 0;
byte in_flight[VERSIONS + 1]; /* handed out and not in a row yet, by version */

inline all_acknowledge(e, yes) {
    yes = ((!member[0] || acknowledged[0] >= e) &&
           (!member[1] || acknowledged[1] >= e) &&
           (!member[2] || acknowledged[2] >= e))
}

/* Nothing protected by a version before `primary` can come any more: all nodes know the
 * primary, and what was handed out before is older than the window, so it is in its row. */
inline quiet(yes) {
    all_acknowledge(promoted, yes);
#ifdef BREAK_SCAN_BEFORE_ACKNOWLEDGEMENT
    yes = true;
#endif
#ifndef BREAK_SCAN_INSIDE_THE_WINDOW
    yes = (yes && in_flight[1] == 0 && (primary == 2 || in_flight[2] == 0))
#endif
}

inline arrives(r) {
    in_flight[sealing]--;
    row_version[r] = sealing;
    row_value[r] = !row_value[r];
    written[r] = row_value[r];
    assert(sealing > destroyed);
    sealing = 0
}

inline forget_work() {
    token = 0; at = 0; target = 0; looked = false; moved = false;
    saw_version = 0; saw_value = 0
}

proctype node(byte n) {
    bool lease = true;
    byte knows_newest = 1;
    byte knows_primary = 1;
    byte sealing = 0;         /* version of a ciphertext on its way to a row */
    /* The step of the job that this node works on. */
    byte token = 0;
    byte at = 0;
    byte target = 0;
    bool looked = false;
    bool moved = false;
    byte saw_version = 0;
    bit saw_value = 0;
    bool yes = false;

end:
    do
    /* --- knowing: read what is new, serve by it, say so --- */
    :: d_step { member[n] && acknowledged[n] < epoch ->
        knows_newest = newest; knows_primary = primary;
        acknowledged[n] = epoch
       }
    :: d_step { member[n] && !lease -> lease = true }       /* renewed in time */
    :: d_step { !member[n] ->                               /* joins with what is true now */
#ifndef BREAK_JOIN_WITH_OLD_KNOWLEDGE
        knows_newest = newest; knows_primary = primary;
#endif
        acknowledged[n] = epoch;
        member[n] = true; lease = true
       }
    :: d_step { lease -> lease = false }                    /* by its own clock, or a crash */
#ifdef BREAK_LEASE_TAKEN_TOO_EARLY
    :: d_step { member[n] -> member[n] = false; acknowledged[n] = 0 }
#else
    :: d_step { member[n] && !lease -> member[n] = false; acknowledged[n] = 0
#ifndef BREAK_JOIN_WITH_OLD_KNOWLEDGE
        ; knows_newest = 0; knows_primary = 0
#endif
       }
#endif
    :: d_step { token > 0 && !lease -> forget_work() }      /* a crash */

    /* --- serving --- */
    :: d_step { lease && sealing == 0 && writes < WRITES ->
        writes++;
        assert(knows_primary > destroyed);
        sealing = knows_primary;
        in_flight[sealing]++
       }
    :: d_step { sealing > 0 -> arrives(0) }
    :: d_step { sealing > 0 -> arrives(1) }
    :: d_step { lease && (row_version[0] > knows_newest || row_version[1] > knows_newest) ->
        assert(false)                                       /* a version it does not know */
       }

    /* --- rotation, by whichever node thinks it is time --- */
    :: d_step { lease && newest == primary && newest < VERSIONS -> newest++; epoch++ }
    :: d_step { newest > primary ->
        all_acknowledge(epoch, yes);
#ifdef BREAK_PROMOTE_AT_ONCE
        yes = true;
#endif
        if
        :: yes -> primary = newest; epoch++; promoted = epoch
        :: else
        fi;
        yes = false
       }

    /* --- the job: lease, look, write, checkpoint --- */
    :: d_step { job_target == 0 && destroyed + 1 < primary ->
        quiet(yes);
        if
        :: yes -> job_target = primary; cursor = 0; effects[0] = 0; effects[1] = 0
        :: else
        fi;
        yes = false
       }
    :: d_step { n < WORKERS && job_target > 0 && cursor < ROWS && token == 0 && job_token < TAKES ->
        job_token++;                                        /* free, or its time is over */
        token = job_token;
        at = cursor;
#ifdef BREAK_TARGET_FROM_MEMORY
        target = knows_primary
#else
        target = job_target
#endif
       }
    :: d_step { token > 0 && !looked && !moved ->
        saw_version = row_version[at]; saw_value = row_value[at];
        looked = true
       }
    :: d_step { looked ->
        if
#ifdef BREAK_WRITE_WITHOUT_COMPARING
        :: true ->
#else
        :: row_version[at] == saw_version && row_value[at] == saw_value ->
#endif
            if
            :: saw_version < target ->
                row_version[at] = target; row_value[at] = saw_value;
                assert(row_value[at] == written[at]);       /* no write is lost */
                assert(target > destroyed)
            :: else
            fi;
            moved = true
        :: else                                             /* changed meanwhile: again */
        fi;
        looked = false; saw_version = 0; saw_value = 0
       }
    :: d_step { moved ->
        if
#ifdef BREAK_CHECKPOINT_WITHOUT_TOKEN
        :: job_target > 0 ->
#else
        :: job_target > 0 && token == job_token ->
#endif
            effects[at]++;
            assert(effects[at] == 1);                       /* each step counts once */
            cursor = at + 1;
            /* The next step under the same lease. */
            if
            :: cursor < ROWS -> at = cursor; moved = false
            :: else -> forget_work()
            fi
        :: else -> forget_work()
        fi
       }

    /* --- the gate --- */
#ifdef BREAK_DESTROY_UNFINISHED
    :: d_step { job_target > 0 ->
#else
    :: d_step { job_target > 0 && cursor == ROWS ->
#endif
        destroyed = job_target - 1;
        job_target = 0; cursor = 0; effects[0] = 0; effects[1] = 0;
        assert(row_version[0] > destroyed && row_version[1] > destroyed)
       }
    od
}

init {
    atomic { run node(0); run node(1); run node(2) }
}
