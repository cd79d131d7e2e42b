/*
 * The guest's network cards, and the names of other hosts. Questions for names come to 127.0.0.11, as docker has it. Each
 * goes to the host as a frame ASKED, whose session is the number of the question, and comes back as a frame ANSWER.
 */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

/* What a network card is to be. Addresses are in network byte order, and 0 is none: without an address it is
   down. Its hardware address stays if that is 0. */
struct interface {
    uint32_t card, address, netmask, gateway, mtu;
    uint8_t mac[6];
};

/* Let the guest reach itself by 127.0.0.1. */
void raise_loopback(void);
/* Let nobody see the cards but the first. A container has more of them seldom, and to give one up takes long. */
void hide_cards(void);
/* Give a network card its addresses, or let it be down. Returns 0, or an error number. */
long set_interface(const uint8_t *value, uint32_t size);

/* Take questions from now on. */
void open_names(void);
/* Forget all questions: there is another host, which does not know of them. */
void forget_questions(void);
/* Give an answer to who has asked. */
void answer_question(uint32_t which, const uint8_t *answer, uint32_t size);
/* Add what is waited for to the list of what is polled, and do what can be done now that polling has returned. */
void watch_names(void);
void serve_names(void);

#endif
